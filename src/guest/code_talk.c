/*
 * guest/code_talk.c - frames of a harness and the two pipes beside them
 *
 * Before a frame is dealt with, what the pipes held when it came is passed on:
 * the harness flushes first, so results follow the text that was printed before
 * them (CODE-2). Whatever does not fit into the client's credit stays where it
 * is and stops the interpreter (CODE-3).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/agent.h"
#include "guest/code_int.h"
#include "sys/fd.h"

enum {
	FRAMES_PER_TURN = 16, /* then others have their turn */
	PARK_BELOW = 1024,    /* less room: wait for the reader, chunks would be crumbs */
};

static struct loop *loop_of(const struct code *c)
{
	return c->all->agent->loop;
}

static void pump(struct code *c);

/* ---- pipes ---- */

static void pipe_end(struct code_pipe *p)
{
	loop_io_del(loop_of(p->code), &p->io);
	p->fd = sys_close(p->fd);
	p->owed = 0;
}

/* Returns false when there is no room. */
static bool pipe_pass(struct code_pipe *p, size_t max)
{
	size_t room = code_run_space(p->code);
	char buf[CODE_FRAME_MAX];
	ssize_t r;

	if (room < PARK_BELOW)
		return false;
	max = MIN(max, room);
	r = sys_read(p->fd, buf, MIN(max, sizeof(buf)));
	if (r > 0) {
		code_run_say(p->code, p->kind, buf, (size_t)r);
		p->owed -= MIN(p->owed, (size_t)r);
	} else if (r == -EAGAIN) {
		p->owed = 0; /* somebody else took it: pipes can be opened through /proc */
	} else {
		pipe_end(p);
	}
	return true;
}

/* Source was handed over, RUNNING was not read: whose output this is can't be told yet. */
static bool is_between(const struct code *c)
{
	return c->proto.running && !c->proto.told && !c->reaped;
}

static void on_pipe(struct loop_io *io, unsigned events)
{
	struct code_pipe *p = CONTAINER_OF(io, struct code_pipe, io);
	struct code *c = p->code;

	(void)events;
	if (is_between(c) || !pipe_pass(p, SIZE_MAX)) {
		loop_io_del(loop_of(c), &p->io); /* without it a hang-up would be reported all the time */
		p->is_parked = true;
	} else if (c->has_frame || c->reaped) {
		pump(c);
	}
}

static int pipe_open(struct code_pipe *p, struct code *c, int fd, enum code_chunk kind)
{
	int r;

	*p = (struct code_pipe){.code = c, .fd = fd, .kind = kind};
	r = sys_nonblock(fd, true);
	return r < 0 ? r : loop_io_add(loop_of(c), &p->io, fd, LOOP_READ, on_pipe);
}

static void pipe_resume(struct code_pipe *p)
{
	if (!p->is_parked || p->fd < 0)
		return;
	p->is_parked = false;
	if (loop_io_add(loop_of(p->code), &p->io, p->fd, LOOP_READ, on_pipe) < 0)
		pipe_end(p);
}

static void pipe_note_owed(struct code_pipe *p)
{
	int n = 0;

	if (p->fd >= 0 && ioctl(p->fd, FIONREAD, &n) == 0 && n > 0)
		p->owed = (size_t)n;
}

static bool pipe_settle(struct code_pipe *p)
{
	while (p->owed)
		if (!pipe_pass(p, p->owed))
			return false;
	return true;
}

static void note_owed(struct code *c)
{
	pipe_note_owed(&c->out);
	pipe_note_owed(&c->err);
}

/* All that was printed before is passed on; false: no room. */
static bool settle(struct code *c)
{
	return pipe_settle(&c->out) && pipe_settle(&c->err);
}

/* ---- frames ---- */

static void say_part(struct code *c, const struct code_frame *f)
{
	struct str text = STR_INIT(CODE_PART_MAX);

	code_part_encode(f, &text);
	code_run_say(c, f->kind == CODE_PART ? CHUNK_PART : CHUNK_ERROR, text.p, text.len);
	str_deinit(&text);
}

static void on_ready_frame(struct code *c, const struct code_frame *f)
{
	(void)f;
	code_ready(c);
}

static void on_running(struct code *c, const struct code_frame *f)
{
	(void)f;
	code_run_started(c);
	pipe_resume(&c->out);
	pipe_resume(&c->err);
}

static void on_body(struct code *c, const struct code_frame *f)
{
	code_run_say(c, CHUNK_BODY, f->body.p, f->body.n);
}

static void on_end(struct code *c, const struct code_frame *f)
{
	static const char *const words[] = {
		[CODE_OK] = "ok", [CODE_FAILED] = "error", [CODE_INTERRUPTED] = "interrupted"};
	bool late = c->run->timed_out;
	char message[LIMIT_TEXT_SHORT + 64] = "";
	enum code_outcome outcome;
	int32_t exit_code;

	code_end_read(f, &outcome, &exit_code);
	late &= outcome != CODE_OK;
	if (late)
		(void)snprintf(message, sizeof(message), "it ran longer than %llu ms and was interrupted",
			       (unsigned long long)c->run->timeout_ms);
	code_run_end(c, late ? "timeout" : words[outcome], exit_code, 0, message);
	c->state = CODE_IDLE;
}

static void on_reseeded(struct code *c, const struct code_frame *f)
{
	if (c->stale_proofs) {
		c->stale_proofs--;
		c->proto.reseeding = true;
		return;
	}
	if (memcmp(f->body.p, c->nonce, CODE_NONCE) != 0)
		code_kill(c, "ended", "the interpreter's proof of new randomness was not one");
	else
		c->all->proofs++;
	code_proven(c);
}

static void (*const handlers[])(struct code *c, const struct code_frame *f) = {
	[CODE_READY] = on_ready_frame, [CODE_RUNNING] = on_running, [CODE_PART] = say_part,
	[CODE_BODY] = on_body,	       [CODE_ERROR] = say_part,	    [CODE_END] = on_end,
	[CODE_RESEEDED] = on_reseeded,
};

/* One frame, whole. Returns false when it has to wait for the reader. */
static bool deal(struct code *c)
{
	struct code_frame f;
	struct err e = ERR_INIT;

	(void)code_reader_frame(&c->reader, &f, NULL);
	if (!settle(c) || !code_run_room(c, MAX(f.body.n, (size_t)CODE_PART_MAX)))
		return false;
	c->has_frame = false;
	if (c->state == CODE_DYING || c->state == CODE_ENDED)
		; /* too late: its end is decided */
	else if (code_state_take(&c->proto, &f, &e) < 0)
		code_kill(c, "ended", "the interpreter said what it must not (%s): it was killed", e.text);
	else
		handlers[f.kind](c, &f);
	code_reader_drop(&c->reader);
	return true;
}

static void on_silence(struct loop_timer *t)
{
	struct code *c = CONTAINER_OF(t, struct code, starting);

	code_kill(c, "ended", "the interpreter closed its line to hotcell: it was killed");
}

/* One that ends closes it, too, and is about to be reaped. */
static void talk_closed(struct code *c)
{
	loop_io_del(loop_of(c), &c->talk);
	c->talk_fd = sys_close(c->talk_fd);
	if (!c->reaped)
		loop_timer_set(loop_of(c), &c->starting, loop_now(loop_of(c)) + CODE_GRACE_NS, on_silence);
}

/* Returns 1 when there is a frame, 0 when there is more of it than before, -1 when nothing comes now. */
static int read_frame(struct code *c)
{
	struct code_frame f;
	struct err e = ERR_INIT;
	size_t n;
	void *p = code_reader_space(&c->reader, &n);
	ssize_t r = sys_read(c->talk_fd, p, n);
	int got;

	if (r <= 0) {
		if (r != -EAGAIN || c->reaped)
			talk_closed(c);
		return -1;
	}
	c->reader.used += (size_t)r;
	got = code_reader_frame(&c->reader, &f, &e);
	if (got < 0) {
		code_kill(c, "ended", "the interpreter said what it must not (%s): it was killed", e.text);
		talk_closed(c);
		return -1;
	}
	return got;
}

static void park(struct code *c)
{
	loop_io_del(loop_of(c), &c->talk);
	c->talk_is_parked = true;
}

/* May free @c, at its end. */
static void pump(struct code *c)
{
	for (int i = 0; i < FRAMES_PER_TURN && c->talk_fd >= 0; i++) {
		if (!c->has_frame) {
			int got = read_frame(c);

			if (got < 0)
				break;
			if (got == 0)
				continue;
			c->has_frame = true;
			if (!is_between(c)) /* else it follows the frame, which is RUNNING */
				note_owed(c);
		}
		if (!deal(c)) {
			park(c);
			return;
		}
	}
	if (!c->reaped || c->talk_fd >= 0)
		return;
	note_owed(c);
	if (settle(c))
		code_gone(c);
}

/* ---- orders ---- */

static void drop_order(struct code *c)
{
	free(take_ptr(&c->order));
	c->order_n = c->order_sent = 0;
}

static void push_order(struct code *c)
{
	while (c->order_sent < c->order_n) {
		ssize_t r = sys_write(c->talk_fd, c->order + c->order_sent, c->order_n - c->order_sent);

		if (r == -EAGAIN)
			break;
		if (r < 0) { /* it is ending; its end will be seen */
			c->order_sent = c->order_n;
			break;
		}
		c->order_sent += (size_t)r;
	}
	if (c->order_sent == c->order_n)
		drop_order(c);
	if (!c->talk_is_parked)
		(void)loop_io_set(loop_of(c), &c->talk, c->order ? LOOP_READ | LOOP_WRITE : LOOP_READ);
}

void code_order(struct code *c, enum code_order kind, const void *p, size_t n)
{
	size_t left = c->order_n - c->order_sent;
	unsigned char *order = mem_new(left + CODE_HEAD + n);

	if (left)
		memcpy(order, c->order + c->order_sent, left);
	code_head(order + left, kind, n);
	memcpy(order + left + CODE_HEAD, p, n);
	drop_order(c);
	c->order = order;
	c->order_n = left + CODE_HEAD + n;
	push_order(c);
}

static void on_talk(struct loop_io *io, unsigned events)
{
	struct code *c = CONTAINER_OF(io, struct code, talk);

	if (events & LOOP_WRITE)
		push_order(c);
	pump(c);
}

/* ---- life ---- */

int code_talk_open(struct code *c, int talk_fd, int out_fd, int err_fd, struct err *e)
{
	int r;

	c->talk_fd = talk_fd;
	c->talk_is_parked = c->has_frame = false;
	c->reader.used = 0;
	c->proto = (struct code_state){0};
	r = pipe_open(&c->out, c, out_fd, CHUNK_STDOUT);
	if (r == 0)
		r = pipe_open(&c->err, c, err_fd, CHUNK_STDERR);
	else
		c->err = (struct code_pipe){.code = c, .fd = err_fd};
	if (r == 0)
		r = loop_io_add(loop_of(c), &c->talk, talk_fd, LOOP_READ, on_talk);
	return r < 0 ? err_sys(e, r, "follow an interpreter") : 0;
}

void code_talk_close(struct code *c)
{
	struct loop *l = loop_of(c);

	loop_io_del(l, &c->talk);
	loop_io_del(l, &c->out.io);
	loop_io_del(l, &c->err.io);
	c->talk_fd = sys_close(c->talk_fd);
	c->out.fd = sys_close(c->out.fd);
	c->err.fd = sys_close(c->err.fd);
	drop_order(c);
}

void code_talk_over(struct code *c)
{
	if (!c->talk_is_parked)
		pump(c);
}

void code_talk_resume(struct code *c)
{
	pipe_resume(&c->out);
	pipe_resume(&c->err);
	if (!c->talk_is_parked || c->talk_fd < 0) {
		if (c->reaped)
			pump(c);
		return;
	}
	c->talk_is_parked = false;
	if (loop_io_add(loop_of(c), &c->talk, c->talk_fd, LOOP_READ, on_talk) < 0) {
		talk_closed(c);
		return;
	}
	pump(c);
}
