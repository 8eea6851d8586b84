/*
 * hotcell.h - run code that nobody has read in a machine of its own, from C
 *
 *	struct hotcell *h;
 *	struct hotcell_sandbox *s;
 *	struct hotcell_result *r;
 *	struct hotcell_error e;
 *
 *	if (hotcell_connect(NULL, &h, &e) < 0 || hotcell_create_default(h, &s, &e) < 0 ||
 *	    hotcell_execute(s, "echo $((6 * 7))", NULL, &r, &e) < 0)
 *		errx(1, "%s", e.message);
 *	fputs(hotcell_result_stdout(r, NULL), stdout);
 *	hotcell_result_free(r);
 *	hotcell_sandbox_destroy(s, &e);
 *	hotcell_disconnect(h);
 *
 * Calls return 0, or -code (enum hotcell_code) and a sentence in @e; @e may be NULL. Outputs
 * (`ret`, `ret_x`) are last and untouched on failure. Calls block. What every call may return and
 * its comment does not repeat: HOTCELL_INVALID and _LIMIT (an argument; the message names it),
 * HOTCELL_NOT_FOUND (the sandbox is gone), HOTCELL_CONFLICT (it is in another state than the call
 * needs), HOTCELL_DENIED, HOTCELL_UNAVAILABLE and HOTCELL_GONE (the daemon), HOTCELL_INTERNAL.
 *
 * Ownership: objects given by hotcell_x() are freed by their own _free, _close or _destroy,
 * which accept NULL. Texts and bytes returned by accessors are lent until their object is
 * freed. Arguments are lent for the call and copied where they are kept.
 *
 * Threads: a connection and everything made through it belong to one thread at a time.
 * Connections share nothing: use one per thread. The library keeps no global state, installs
 * no signal handlers and is not disturbed by the caller's.
 *
 * Compatibility: objects are opaque; option structs begin with their size, set it with the
 * initialiser given, so that a program built against an old header runs with a new library.
 * struct hotcell_error never changes.
 *
 * When the daemon dies, calls that can be repeated without doing something twice are; programs
 * that are being followed go on where they were, byte for byte, within 30 s.
 */
#ifndef HOTCELL_H
#define HOTCELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HOTCELL_API __attribute__((visibility("default")))

enum hotcell_code {
	HOTCELL_INVALID = 1,	 /* malformed; the message names the field and the limit */
	HOTCELL_NOT_FOUND = 2,	 /* no such sandbox, session, file or template */
	HOTCELL_CONFLICT = 3,	 /* not legal in this state, or the name is taken */
	HOTCELL_DENIED = 4,	 /* policy or permissions forbid it */
	HOTCELL_LIMIT = 5,	 /* a named maximum was reached */
	HOTCELL_TIMEOUT = 6,	 /* the deadline passed */
	HOTCELL_UNSUPPORTED = 7, /* this host or template cannot do it; nothing was touched */
	HOTCELL_UNAVAILABLE = 8, /* not reachable now; trying again may help */
	HOTCELL_GONE = 9,	 /* the machine, session or connection ended before the call did */
	HOTCELL_CANCELED = 10,	 /* withdrawn */
	HOTCELL_INTERNAL = 11,	 /* a defect of hotcell's */
	HOTCELL_FORKED = 12,	 /* paused, rolled back or copied: the program lives on, this session of it ended */
	HOTCELL_BUSY = 13,	 /* what runs there could not be stopped in time; it goes on, try again */
};

struct hotcell_error {
	int code; /* enum hotcell_code */
	char message[512];
};

struct hotcell;		/* a connection to the daemon; petty-core's SandboxManager */
struct hotcell_sandbox; /* a handle of one sandbox */
struct hotcell_list;
struct hotcell_snapshot; /* what is known of one; the snapshot itself stays */
struct hotcell_pool;	/* what is known of one, as above */
struct hotcell_result;	/* of a program that has ended */
struct hotcell_code_result; /* of source that has run */
struct hotcell_session; /* a program that is being followed */
struct hotcell_dir;

HOTCELL_API const char *hotcell_version(void); /* of the library: "0.1.0"; static, as the next one's */
HOTCELL_API const char *hotcell_code_name(int code); /* "not_found"; "unknown" */

/* ---- connection ---- */

struct hotcell_connect_options {
	size_t size;
	const char *run_dir;	/* absolute; NULL: $HOTCELL_RUN, or the default of this user */
	bool no_start;		/* fail with HOTCELL_UNAVAILABLE instead of starting the daemon */
	uint32_t start_timeout_ms; /* for a daemon to serve; 0: 30000 */
};
#define HOTCELL_CONNECT_OPTIONS_INIT {.size = sizeof(struct hotcell_connect_options)}

/*
 * hotcell_connect() - connect to the daemon, starting it when nobody listens
 * @o:	NULL: all defaults
 *
 * hotcelld is looked for beside the calling program, in ../libexec/hotcell from there, and in $PATH.
 * Return: 0; HOTCELL_UNAVAILABLE with the daemon's last words; HOTCELL_TIMEOUT; HOTCELL_DENIED.
 */
HOTCELL_API int hotcell_connect(const struct hotcell_connect_options *o, struct hotcell **ret,
				struct hotcell_error *e);
/* Free everything made through @h first. Ephemeral sandboxes held by it are removed. NULL is fine. */
HOTCELL_API void hotcell_disconnect(struct hotcell *h);

/* ---- sandboxes ---- */

/* What is wanted. NULL and 0 mean: the template's value. Lists end with NULL. */
struct hotcell_config {
	size_t size;
	const char *name;	 /* unique; 1 to 64 of [A-Za-z0-9_.-], not starting with '.' or '-' */
	const char *template_name; /* "base" */
	const char *isolation;	 /* "vm": a kernel of its own; "process": namespaces, a weaker wall */
	uint32_t vcpus;		 /* at most 32 */
	uint32_t memory_mib, disk_mib; /* MiB; at most 32768 and 1048576 */
	uint32_t pids_max;
	uint64_t idle_timeout_ms; /* remove after this long without use */
	uint64_t lifetime_ms;	  /* remove this long after creation */
	bool ephemeral;		  /* remove when the connection that made it goes away */
	const char *const *env;	  /* "NAME=value", for every program */
	const char *const *metadata;   /* "key=value", labels of your own */
	const char *const *unenforced; /* "memory", "cpu", "pids", "disk": accept that this host can't */
	const char *snapshot; /* start from this one, by id or name, instead of a template */
	bool disk_only;	      /* take only the disk of it, and boot */
	bool cold;	      /* boot, even if the template is hot */
	bool idle_never;      /* however long nobody uses it, it stays; instead of idle_timeout_ms */
};
#define HOTCELL_CONFIG_INIT {.size = sizeof(struct hotcell_config)}

/*
 * hotcell_create() - make a sandbox; returns when it runs and its agent has answered
 * @config:	NULL: all defaults
 * Return: 0; HOTCELL_INVALID, _LIMIT naming the field; HOTCELL_CONFLICT (name taken);
 * HOTCELL_NOT_FOUND (template); HOTCELL_UNSUPPORTED (this wall, on this host); HOTCELL_DENIED.
 */
HOTCELL_API int hotcell_create(struct hotcell *h, const struct hotcell_config *config,
			       struct hotcell_sandbox **ret, struct hotcell_error *e);
HOTCELL_API int hotcell_create_default(struct hotcell *h, struct hotcell_sandbox **ret,
				       struct hotcell_error *e);
/* A handle of a sandbox that exists, by id or name. HOTCELL_NOT_FOUND. */
HOTCELL_API int hotcell_open(struct hotcell *h, const char *id, struct hotcell_sandbox **ret,
			     struct hotcell_error *e);
/* Open, call @fn with the handle, which is lent, close. Return: what @fn returns, or of the opening. */
HOTCELL_API int hotcell_with_sandbox(struct hotcell *h, const char *id,
				     int (*fn)(struct hotcell_sandbox *s, void *arg,
					       struct hotcell_error *e),
				     void *arg, struct hotcell_error *e);
/* End it and free everything it had; returns when that is done. HOTCELL_NOT_FOUND. */
HOTCELL_API int hotcell_destroy(struct hotcell *h, const char *id, struct hotcell_error *e);
/* Every sandbox of the caller. Goes on after a failure and returns the first one. */
HOTCELL_API int hotcell_destroy_all(struct hotcell *h, struct hotcell_error *e);

/* Is there one with this id or name? None is no error. */
HOTCELL_API int hotcell_exists(struct hotcell *h, const char *id, bool *ret, struct hotcell_error *e);
HOTCELL_API int hotcell_count(struct hotcell *h, size_t *ret, struct hotcell_error *e); /* of the caller */
/* Every sandbox of the caller, as it is now; hotcell_list_free(). */
HOTCELL_API int hotcell_list(struct hotcell *h, struct hotcell_list **ret, struct hotcell_error *e);
HOTCELL_API size_t hotcell_list_count(const struct hotcell_list *l);
/* A handle lent until @l is freed, not to be closed or destroyed; @i below the count. */
HOTCELL_API struct hotcell_sandbox *hotcell_list_get(const struct hotcell_list *l, size_t i);
HOTCELL_API void hotcell_list_free(struct hotcell_list *l);

enum hotcell_state { HOTCELL_CREATING, HOTCELL_READY, HOTCELL_PAUSED, HOTCELL_STOPPING, HOTCELL_FAILED };

/* As of when the handle was made, or of the last hotcell_sandbox_refresh(). */
HOTCELL_API const char *hotcell_sandbox_id(const struct hotcell_sandbox *s); /* 32 hex digits */
HOTCELL_API const char *hotcell_sandbox_name(const struct hotcell_sandbox *s); /* "": none */
HOTCELL_API enum hotcell_state hotcell_sandbox_state(const struct hotcell_sandbox *s);
HOTCELL_API const char *hotcell_sandbox_wall(const struct hotcell_sandbox *s); /* "vm", "vm-emulated", "process" */
HOTCELL_API const char *hotcell_sandbox_template(const struct hotcell_sandbox *s);
HOTCELL_API uint32_t hotcell_sandbox_vcpus(const struct hotcell_sandbox *s);
HOTCELL_API uint32_t hotcell_sandbox_memory_mib(const struct hotcell_sandbox *s);
HOTCELL_API uint64_t hotcell_sandbox_created_ms(const struct hotcell_sandbox *s); /* Unix time, ms */
/* All of it as one JSON object; its keys are those of `hotcell info --json`. */
HOTCELL_API const char *hotcell_sandbox_json(const struct hotcell_sandbox *s);
/* Ask again; texts lent before are void. HOTCELL_NOT_FOUND: it is gone, and the handle is as it was. */
HOTCELL_API int hotcell_sandbox_refresh(struct hotcell_sandbox *s, struct hotcell_error *e);

/* Does its agent answer within 10 s? A busy one counts as healthy. */
HOTCELL_API bool hotcell_sandbox_is_healthy(struct hotcell_sandbox *s);
/* Forget the handle; the sandbox stays. NULL is fine. */
HOTCELL_API void hotcell_sandbox_close(struct hotcell_sandbox *s);
/* End the sandbox. The handle is freed in every case. */
HOTCELL_API int hotcell_sandbox_destroy(struct hotcell_sandbox *s, struct hotcell_error *e);

/*
 * ---- whole machines: memory, disk and processes ----
 *
 * A copy contains what the machine had in memory: keys and tokens that a program there read, too.
 * The source stands still for milliseconds. Calls of this section also return HOTCELL_UNSUPPORTED
 * (a wall without memory of its own, "process"), HOTCELL_CONFLICT (not running, being copied, or the
 * name is taken), HOTCELL_BUSY (its programs did not stand still within 100 ms; nothing happened) and
 * HOTCELL_LIMIT (memory budget, full disk, 8 layers of a disk); the source runs on after each.
 */

/*
 * hotcell_fork() - running copies of a running sandbox
 * @count:	1 to 256
 * @name:	of the copy; of several: NAME-1, NAME-2 and so on; NULL: none
 * @ret:	@count handles, in order; hotcell_list_free() frees them and leaves the sandboxes, which are
 *		reached by hotcell_open() from then on
 *
 * They have an id, clock and randomness of their own; programs run on in them, without whoever
 * followed them. All of them are made, or none.
 */
HOTCELL_API int hotcell_fork(struct hotcell_sandbox *s, unsigned count, const char *name,
			     struct hotcell_list **ret, struct hotcell_error *e);
/* Save it and give its memory back; sessions end with HOTCELL_FORKED. The handle is refreshed. */
HOTCELL_API int hotcell_pause(struct hotcell_sandbox *s, struct hotcell_error *e);
/* Go on where it was paused; when its machine can't be started it is paused still. The handle is refreshed. */
HOTCELL_API int hotcell_resume(struct hotcell_sandbox *s, struct hotcell_error *e);
/*
 * hotcell_rollback() - put it back to a snapshot that was taken of it
 * @snapshot:	id or name
 *
 * What it did since is lost; sessions end with HOTCELL_FORKED. The handle is refreshed.
 * Return: 0; HOTCELL_NOT_FOUND (sandbox or snapshot); HOTCELL_INVALID (of another sandbox).
 */
HOTCELL_API int hotcell_rollback(struct hotcell_sandbox *s, const char *snapshot,
				 struct hotcell_error *e);

/*
 * hotcell_snapshot_create() - keep a running sandbox as it is; it runs on
 * @name:	unique; NULL: none
 * @keep_ms:	delete it after this long; 0: kept until it is removed
 * @ret:	what is known of it; hotcell_snapshot_free() frees that and leaves the snapshot
 *
 * It is on disk when this returns.
 */
HOTCELL_API int hotcell_snapshot_create(struct hotcell_sandbox *s, const char *name, uint64_t keep_ms,
					struct hotcell_snapshot **ret, struct hotcell_error *e);
/* By id or name; hot templates are snapshots too. hotcell_snapshot_free(). HOTCELL_NOT_FOUND. */
HOTCELL_API int hotcell_snapshot_open(struct hotcell *h, const char *snapshot,
				      struct hotcell_snapshot **ret, struct hotcell_error *e);
/* Delete it; what is running on it runs on. HOTCELL_NOT_FOUND. */
HOTCELL_API int hotcell_snapshot_remove(struct hotcell *h, const char *snapshot, struct hotcell_error *e);
/*
 * hotcell_snapshot_list() - call @fn with each snapshot and hot template of the caller
 * @fn:		@s is lent for the call; of this library it may use the accessors of @s only. 0: go on
 *
 * Return: 0; HOTCELL_CANCELED when @fn returned something else.
 */
HOTCELL_API int hotcell_snapshot_list(struct hotcell *h,
				      int (*fn)(void *arg, const struct hotcell_snapshot *s), void *arg,
				      struct hotcell_error *e);
HOTCELL_API const char *hotcell_snapshot_id(const struct hotcell_snapshot *s); /* 32 hex digits */
HOTCELL_API const char *hotcell_snapshot_name(const struct hotcell_snapshot *s); /* "": none */
/* Made by hotcell_template_build(), not by hotcell_snapshot_create(). */
HOTCELL_API bool hotcell_snapshot_is_template(const struct hotcell_snapshot *s);
/* All of it as one JSON object; its keys are those of `hotcell snapshot info --json`. */
HOTCELL_API const char *hotcell_snapshot_json(const struct hotcell_snapshot *s);
HOTCELL_API void hotcell_snapshot_free(struct hotcell_snapshot *s); /* NULL is fine */

/*
 * hotcell_template_build() - boot a template once, warm it and keep it hot
 *
 * @memory_mib, @disk_mib: MiB
 * @ret:	hotcell_snapshot_free()
 *
 * Its image must be there (`hotcell image build`). Sandboxes of this template and shape are
 * forks from then on. 0 as a number: the template's value. Takes a boot and what the template
 * warms: seconds.
 * Return: 0; HOTCELL_NOT_FOUND (no image); HOTCELL_UNSUPPORTED (no QEMU here).
 */
HOTCELL_API int hotcell_template_build(struct hotcell *h, const char *template_name, uint32_t vcpus,
				       uint32_t memory_mib, uint32_t disk_mib,
				       struct hotcell_snapshot **ret, struct hotcell_error *e);

/*
 * ---- pools: sandboxes made before anybody asks ----
 *
 * Creates that fit a pool take a ready one of it, which takes milliseconds. Pools belong to the caller's
 * tenant and are kept until they are removed; what identifies one is its template, wall and sizes.
 */

/* Shape of the spares. NULL and 0 mean: the template's value. */
struct hotcell_pool_options {
	size_t size;
	const char *isolation;		/* "vm" or "process"; NULL: "vm" */
	uint32_t vcpus, memory_mib, disk_mib; /* limits as in struct hotcell_config */
	const char *const *unenforced;	/* as in struct hotcell_config */
};
#define HOTCELL_POOL_OPTIONS_INIT {.size = sizeof(struct hotcell_pool_options)}

/*
 * hotcell_pool_set() - how many spares of a template are kept
 * @ready:	sandboxes that run and wait, at most 256
 * @prestarted:	empty shells that only have to load the hot template, at most 256; one of the two is not 0
 * @o:		NULL: all defaults
 * @ret:	hotcell_pool_free(); NULL: not wanted
 *
 * Returns before they are made; hotcell_pool_ready() of a pool asked for later says how many are there.
 * Return: 0; HOTCELL_NOT_FOUND (template); HOTCELL_UNSUPPORTED (this wall, on this host).
 */
HOTCELL_API int hotcell_pool_set(struct hotcell *h, const char *template_name, unsigned ready,
				 unsigned prestarted, const struct hotcell_pool_options *o,
				 struct hotcell_pool **ret, struct hotcell_error *e);
/* End the pool that was set with the same shape, and what waits in it. HOTCELL_NOT_FOUND. */
HOTCELL_API int hotcell_pool_remove(struct hotcell *h, const char *template_name,
				    const struct hotcell_pool_options *o, struct hotcell_error *e);
/*
 * hotcell_pool_list() - call @fn with each pool of the caller
 * @fn:		@p is lent for the call; of this library it may use the accessors of @p only. 0: go on
 *
 * Return: 0; HOTCELL_CANCELED when @fn returned something else.
 */
HOTCELL_API int hotcell_pool_list(struct hotcell *h, int (*fn)(void *arg, const struct hotcell_pool *p),
				  void *arg, struct hotcell_error *e);
HOTCELL_API const char *hotcell_pool_template(const struct hotcell_pool *p);
HOTCELL_API const char *hotcell_pool_isolation(const struct hotcell_pool *p); /* "vm", "process" */
HOTCELL_API unsigned hotcell_pool_size(const struct hotcell_pool *p);  /* ready sandboxes that are wanted */
HOTCELL_API unsigned hotcell_pool_ready(const struct hotcell_pool *p); /* that are there */
HOTCELL_API uint64_t hotcell_pool_hits(const struct hotcell_pool *p);  /* creates that took a spare of it */
HOTCELL_API uint64_t hotcell_pool_misses(const struct hotcell_pool *p); /* creates that found none */
/* Why the last attempt to make a spare failed; "": it did not. */
HOTCELL_API const char *hotcell_pool_reason(const struct hotcell_pool *p);
/* All of it as one JSON object; its keys are those of `hotcell pool list --json`. */
HOTCELL_API const char *hotcell_pool_json(const struct hotcell_pool *p);
HOTCELL_API void hotcell_pool_free(struct hotcell_pool *p); /* NULL is fine */

/* ---- programs ---- */

struct hotcell_exec_options {
	size_t size;
	const char *const *env; /* "NAME=value", ends with NULL */
	const char *cwd;	/* NULL: the user's home */
	const char *user;	/* of the guest; NULL: the template's default */
	uint64_t timeout_ms;	/* then the whole process tree is killed; 0: never */
	const void *input;	/* hotcell_execute*: standard input, whole */
	size_t input_size;
	size_t max_output; /* hotcell_execute*: keep this much of each stream; 0: 16 MiB */
	const char *tag;   /* label in the session table */
	bool pty;	   /* hotcell_start: a terminal of @rows x @cols */
	uint16_t rows, cols;
	bool keep_running; /* hotcell_start: goes on when nobody follows it */
	bool drop_output;  /* hotcell_start: what is not read in time is left out, and the program does not wait */
	bool merge_output; /* standard error is standard output: one stream, in the order it was written */
};
#define HOTCELL_EXEC_OPTIONS_INIT {.size = sizeof(struct hotcell_exec_options)}

/*
 * hotcell_execute() - run a shell command to its end
 * @command:	for /bin/sh -c; at most 131071 bytes, Linux's limit of one argument: longer scripts are input of sh -s
 * Return: 0 when it ran, whatever its exit code; HOTCELL_GONE when the sandbox ended.
 */
HOTCELL_API int hotcell_execute(struct hotcell_sandbox *s, const char *command,
				const struct hotcell_exec_options *o, struct hotcell_result **ret,
				struct hotcell_error *e);
/* The same without a shell; @argv ends with NULL. */
HOTCELL_API int hotcell_execute_argv(struct hotcell_sandbox *s, const char *const *argv,
				     const struct hotcell_exec_options *o,
				     struct hotcell_result **ret, struct hotcell_error *e);
/*
 * hotcell_execute_code() - run source text, given to its interpreter on standard input
 * @language:	python, python3, javascript, js, node, bash, sh; others are a result with exit
 *		code -1 and a sentence in stderr
 * @o:		its input must be NULL
 */
HOTCELL_API int hotcell_execute_code(struct hotcell_sandbox *s, const char *language,
				     const char *code, const struct hotcell_exec_options *o,
				     struct hotcell_result **ret, struct hotcell_error *e);

HOTCELL_API int hotcell_result_exit_code(const struct hotcell_result *r); /* -1: ended by a signal */
HOTCELL_API int hotcell_result_signal(const struct hotcell_result *r);	  /* 0: none */
HOTCELL_API bool hotcell_result_success(const struct hotcell_result *r);  /* exit code 0 */
/* "exited", "signaled", "timeout", "killed", "oom", "detached", "lost" */
HOTCELL_API const char *hotcell_result_reason(const struct hotcell_result *r);
/* NUL-terminated; may hold other NULs: @ret_n (may be NULL) gets the length. */
HOTCELL_API const char *hotcell_result_stdout(const struct hotcell_result *r, size_t *ret_n);
HOTCELL_API const char *hotcell_result_stderr(const struct hotcell_result *r, size_t *ret_n);
HOTCELL_API bool hotcell_result_truncated(const struct hotcell_result *r); /* beyond max_output */
HOTCELL_API uint64_t hotcell_result_wall_ms(const struct hotcell_result *r); /* from its start to its end */
HOTCELL_API uint64_t hotcell_result_cpu_ms(const struct hotcell_result *r); /* of the whole tree */
HOTCELL_API void hotcell_result_free(struct hotcell_result *r);

enum hotcell_stream { HOTCELL_STDOUT = 1, HOTCELL_STDERR = 2, HOTCELL_TERMINAL = 3 };

/* ---- code: source in live interpreters, whose state stays ---- */

struct hotcell_code_options {
	size_t size;
	const char *language; /* NULL: "python"; "shell" */
	uint64_t context;     /* 0: the language's first idle one, started when there is none */
	uint64_t timeout_ms;  /* then it is interrupted, and killed if it does not listen; 0: never */
	size_t max_output;    /* keep this much of each stream; 0: 16 MiB */
	/* Called with output while the code runs; it is kept all the same. It must not call hotcell_x(). */
	void (*output)(void *arg, enum hotcell_stream which, const void *p, size_t n);
	void *arg;
};
#define HOTCELL_CODE_OPTIONS_INIT {.size = sizeof(struct hotcell_code_options)}

/*
 * hotcell_code_run() - run @source to its end
 * @source:	at most 60000 bytes
 * Return: 0 when it ran, however it ended; HOTCELL_CONFLICT when the context is busy;
 * HOTCELL_NOT_FOUND (context, language); HOTCELL_GONE when the connection was lost meanwhile.
 */
HOTCELL_API int hotcell_code_run(struct hotcell_sandbox *s, const char *source,
				 const struct hotcell_code_options *o,
				 struct hotcell_code_result **ret, struct hotcell_error *e);
/* Start another context; @language NULL: "python". */
HOTCELL_API int hotcell_code_open(struct hotcell_sandbox *s, const char *language,
				  uint64_t *ret_context, struct hotcell_error *e);
/* End what it runs, and keep its state. One that runs nothing is left alone. */
HOTCELL_API int hotcell_code_interrupt(struct hotcell_sandbox *s, uint64_t context,
				       struct hotcell_error *e);
/* A fresh interpreter under the same number: its state is lost, what it runs ends. */
HOTCELL_API int hotcell_code_restart(struct hotcell_sandbox *s, uint64_t context,
				     struct hotcell_error *e);
HOTCELL_API int hotcell_code_close(struct hotcell_sandbox *s, uint64_t context,
				   struct hotcell_error *e); /* ends it */

/* "ok", "error" (an exception), "interrupted", "timeout", "ended" (the interpreter is gone) */
HOTCELL_API const char *hotcell_code_status(const struct hotcell_code_result *r);
HOTCELL_API const char *hotcell_code_message(const struct hotcell_code_result *r); /* why; "" when ok */
/* shell: of its last command; status "ended": of the interpreter, -1 when a signal ended it; else 0 */
HOTCELL_API int hotcell_code_exit_code(const struct hotcell_code_result *r);
HOTCELL_API uint64_t hotcell_code_context(const struct hotcell_code_result *r); /* where it ran */
HOTCELL_API uint64_t hotcell_code_duration_us(const struct hotcell_code_result *r); /* microseconds */
/* As hotcell_result_stdout(). */
HOTCELL_API const char *hotcell_code_stdout(const struct hotcell_code_result *r, size_t *ret_n);
HOTCELL_API const char *hotcell_code_stderr(const struct hotcell_code_result *r, size_t *ret_n);
/* Beyond max_output, or beyond 1024 results or 64 MiB of them. */
HOTCELL_API bool hotcell_code_truncated(const struct hotcell_code_result *r);

/* Each value that was shown, in each of its forms: "text/plain", "image/png", "application/json" ... */
HOTCELL_API size_t hotcell_code_count(const struct hotcell_code_result *r);
HOTCELL_API const char *hotcell_code_mime(const struct hotcell_code_result *r, size_t i); /* @i below the count */
/* @ret_n: bytes; a NUL follows them. */
HOTCELL_API const void *hotcell_code_data(const struct hotcell_code_result *r, size_t i, size_t *ret_n);
HOTCELL_API bool hotcell_code_is_main(const struct hotcell_code_result *r, size_t i); /* of the last expression */
/* The main value as text; NULL: none. */
HOTCELL_API const char *hotcell_code_text(const struct hotcell_code_result *r);

/* Of an exception: its class, what it says, its traceback; "" without one. */
HOTCELL_API const char *hotcell_code_error_name(const struct hotcell_code_result *r);
HOTCELL_API const char *hotcell_code_error_message(const struct hotcell_code_result *r);
HOTCELL_API const char *hotcell_code_traceback(const struct hotcell_code_result *r);
HOTCELL_API void hotcell_code_result_free(struct hotcell_code_result *r);

/* ---- sessions: programs while they run ---- */

#define HOTCELL_FOREVER UINT64_MAX

/*
 * hotcell_start() - start a program and follow it; exactly one of @command and @argv
 *
 * @command:	for /bin/sh -c; at most 131071 bytes, Linux's limit of one argument: longer scripts are input of sh -s
 * @argv:	ends with NULL
 * @ret:	end with hotcell_session_close()
 *
 * Output that is not read makes the program wait. Any number of sessions of one connection
 * may be open; while one call blocks, all are served.
 * Return: 0 when it has started; HOTCELL_NOT_FOUND (no such program), HOTCELL_DENIED (it can't be run).
 */
HOTCELL_API int hotcell_start(struct hotcell_sandbox *s, const char *command,
			      const char *const *argv, const struct hotcell_exec_options *o,
			      struct hotcell_session **ret, struct hotcell_error *e);
/* Follow a session that runs, or ended less than 30 s ago, from the oldest output kept. HOTCELL_NOT_FOUND. */
HOTCELL_API int hotcell_attach(struct hotcell_sandbox *s, uint64_t number,
			       struct hotcell_session **ret, struct hotcell_error *e);
struct hotcell_attach_options {
	size_t size;
	bool from_now;	  /* only output that comes from now on */
	bool watch_only;  /* standard input stays with whoever has it */
	bool drop_output; /* as in struct hotcell_exec_options, for this follower */
};
#define HOTCELL_ATTACH_OPTIONS_INIT {.size = sizeof(struct hotcell_attach_options)}
/* The same with options; NULL: all defaults. */
HOTCELL_API int hotcell_attach_with(struct hotcell_sandbox *s, uint64_t number,
				    const struct hotcell_attach_options *o, struct hotcell_session **ret,
				    struct hotcell_error *e);
HOTCELL_API uint64_t hotcell_session_number(const struct hotcell_session *x);
/*
 * hotcell_session_read() - the next output, in the order the program wrote it
 * @ret_n:	bytes put into @p, at least 1; 0: the program has ended and all was read
 * @ret_stream:	which of them
 * @timeout_ms:	milliseconds; HOTCELL_FOREVER
 * Return: 0; HOTCELL_TIMEOUT when nothing came for so long; HOTCELL_GONE; HOTCELL_FORKED.
 */
HOTCELL_API int hotcell_session_read(struct hotcell_session *x, void *p, size_t size,
				     uint64_t timeout_ms, enum hotcell_stream *ret_stream,
				     size_t *ret_n, struct hotcell_error *e);
/* Standard input; blocks until all of it was taken. HOTCELL_GONE when the program ended first. */
HOTCELL_API int hotcell_session_write(struct hotcell_session *x, const void *p, size_t n,
				      struct hotcell_error *e);
HOTCELL_API void hotcell_session_end_input(struct hotcell_session *x); /* it reads the end of its input; twice: fine */
HOTCELL_API int hotcell_session_signal(struct hotcell_session *x, int signal,
				       struct hotcell_error *e); /* 1 to 64 */
HOTCELL_API int hotcell_session_resize(struct hotcell_session *x, uint16_t rows, uint16_t cols,
				       struct hotcell_error *e);
/*
 * hotcell_session_wait() - read on, forget the output, until the program has ended
 * @timeout_ms:		milliseconds; HOTCELL_FOREVER
 * @ret_exit_code:	-1 when a signal ended it; NULL: not wanted
 * Return: 0; HOTCELL_TIMEOUT (it runs on, wait again); HOTCELL_GONE; HOTCELL_FORKED.
 */
HOTCELL_API int hotcell_session_wait(struct hotcell_session *x, uint64_t timeout_ms,
				     int *ret_exit_code, struct hotcell_error *e);
/* Stop following. Without keep_running, and when nobody else follows, the program is killed. NULL is fine. */
HOTCELL_API void hotcell_session_close(struct hotcell_session *x);

/*
 * ---- files ----
 *
 * Paths are the guest's: absolute, or relative to the home of its user; at most 4096 bytes. Calls
 * return HOTCELL_NOT_FOUND, HOTCELL_DENIED, HOTCELL_CONFLICT (it exists, or is a directory) and
 * HOTCELL_LIMIT (no room on the sandbox's disk) as the guest says.
 */

/*
 * hotcell_read_file() - a whole file
 * @max:	bytes; a longer file is HOTCELL_LIMIT
 * @ret:	malloc'd, with a NUL behind the last byte; free() it
 */
HOTCELL_API int hotcell_read_file(struct hotcell_sandbox *s, const char *path, size_t max,
				  char **ret, size_t *ret_n, struct hotcell_error *e);
/* It appears whole or not at all; missing directories are made. @mode 0: 0644. */
HOTCELL_API int hotcell_write_file(struct hotcell_sandbox *s, const char *path, const void *p,
				   size_t n, unsigned mode, struct hotcell_error *e);
/*
 * hotcell_get_file(), hotcell_put_file() - stream a file of any size to or from a descriptor
 * @fd:		lent; read to its end, or written from where it stands
 * @ret_sha256:	65 bytes: the hash of what passed, in hex; NULL: not wanted
 */
HOTCELL_API int hotcell_get_file(struct hotcell_sandbox *s, const char *path, int fd,
				 char *ret_sha256, struct hotcell_error *e);
HOTCELL_API int hotcell_put_file(struct hotcell_sandbox *s, const char *path, int fd, unsigned mode,
				 char *ret_sha256, struct hotcell_error *e);
/* @recursive: a directory and everything in it. HOTCELL_NOT_FOUND. */
HOTCELL_API int hotcell_remove_file(struct hotcell_sandbox *s, const char *path, bool recursive,
				    struct hotcell_error *e);
HOTCELL_API int hotcell_make_dir(struct hotcell_sandbox *s, const char *path, unsigned mode,
				 struct hotcell_error *e); /* parents too; @mode 0: 0755 */

/*
 * The names in a directory, sorted by bytes; hotcell_dir_free(). They come from the guest: never use one as a
 * path unchecked.
 */
HOTCELL_API int hotcell_list_dir(struct hotcell_sandbox *s, const char *path, struct hotcell_dir **ret,
				 struct hotcell_error *e);
/*
 * hotcell_watch_dir() - call @fn with each change in a directory of the sandbox
 * @recursive:	what is below its directories, too
 * @timeout_ms:	end after so long; HOTCELL_FOREVER
 * @fn:		@kind: "create", "write", "remove", "rename", "chmod", or "overflow": changes were left out,
 *		look for yourself; @path: below the directory, as the guest says it. Both are lent for the
 *		call; it must not call hotcell_x(). 0: go on
 *
 * Return: HOTCELL_CANCELED when @fn returned something else; HOTCELL_TIMEOUT; HOTCELL_GONE when the connection
 * was lost, and what changed meanwhile is not known.
 */
HOTCELL_API int hotcell_watch_dir(struct hotcell_sandbox *s, const char *path, bool recursive, uint64_t timeout_ms,
				  int (*fn)(void *arg, const char *kind, const char *path), void *arg,
				  struct hotcell_error *e);
HOTCELL_API size_t hotcell_dir_count(const struct hotcell_dir *d);
HOTCELL_API const char *hotcell_dir_name(const struct hotcell_dir *d, size_t i); /* @i below the count */
HOTCELL_API bool hotcell_dir_is_dir(const struct hotcell_dir *d, size_t i);
HOTCELL_API uint64_t hotcell_dir_size(const struct hotcell_dir *d, size_t i); /* bytes; 0 for directories */
HOTCELL_API void hotcell_dir_free(struct hotcell_dir *d);

#ifdef __cplusplus
}
#endif
#endif
