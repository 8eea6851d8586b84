/*
 * loop/link.h - many calls and byte streams over one descriptor: the only
 * protocol between client, daemon, keeper and guest. Frames: wire/frame.h.
 *
 * A stream is one call: a request, one reply, and bytes in either direction.
 * It is over when the reply has passed and both sides have ended, or at a reset.
 * The answerer replies before its first byte.
 * Bytes need credit: a sender may be LIMIT_WINDOW ahead of what the receiver
 * has consumed, so a reader that stops makes the writer wait and nothing grows.
 *
 * LINK-1 No callback of a stream comes after `closed`, stream_reset() or stream_fail().
 * LINK-2 `closed` comes exactly once for a stream that was not reset or failed here.
 * LINK-3 A callback may free the link and reset any stream.
 * LINK-4 A peer that breaks the protocol ends this link (`down`) and nothing else.
 * LINK-5 No callback comes from inside a stream_ or link_ call.
 *
 * Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/span.h"
#include "wire/record.h"

struct err;
struct link;
struct loop;
struct stream;

struct link_ops {
	/* The peers are in step; all earlier streams are gone. Responder: @generation is the initiator's. */
	void (*up)(struct link *k, uint64_t generation);
	/*
	 * The peer opened @s: call stream_accept() now, or stream_fail(). @payload
	 * is lent; @fds are given where the link carries descriptors. NULL: refused.
	 */
	void (*request)(struct link *k, struct stream *s, unsigned method, struct span payload,
			const int *fds, unsigned n_fds);
	/* Once. All streams were closed before. The owner frees the link, here or later. */
	void (*down)(struct link *k, const struct err *why);
};

struct stream_ops {
	/* Opener only. @payload lent, @fds given. NULL: ignored. */
	void (*reply)(struct stream *s, struct span payload, const int *fds, unsigned n_fds);
	/*
	 * Bytes from @offset on, lent. Offsets grow without a hole unless the sender
	 * skipped (stream_skip). Answer with stream_consumed() when they are dealt with.
	 */
	void (*data)(struct stream *s, uint64_t offset, struct span bytes);
	void (*writable)(struct stream *s);		/* more may be sent than before */
	void (*end)(struct stream *s, uint64_t offset); /* the peer sends no more; its total */
	/* The last callback. @why NULL: complete; otherwise the peer's failure or the link's end. */
	void (*closed)(struct stream *s, const struct err *why);
};

enum link_flags {
	LINK_INITIATOR = 1, /* sends SYNC; streams it opens have odd numbers */
	LINK_FDS = 2,	    /* a Unix socket on which descriptors may travel */
	LINK_RESYNC = 4,    /* initiator: somebody else used this descriptor before (FRAME-2) */
	LINK_SOCKET = 8,    /* recv/send instead of read/write */
};

/*
 * link_new() - run the protocol on @fd, which is given and made non-blocking
 * @generation:	initiator: announced in SYNC
 * Return: 0, or -errno style error (and @fd is closed).
 */
int link_new(struct loop *l, int fd, unsigned flags, uint64_t generation,
	     const struct link_ops *ops, void *arg, struct link **ret, struct err *e);
struct link *link_free(struct link *k);	/* NULL fine; streams vanish without callbacks */
void *link_arg(const struct link *k);
struct loop *link_loop(const struct link *k);
bool link_is_up(const struct link *k);
unsigned link_streams(const struct link *k); /* open now */
int link_fd(const struct link *k);	     /* borrowed */
uint64_t link_heard_ns(const struct link *k); /* loop time at which the peer's last bytes came */

/*
 * link_hold() - what is queued by now goes out; what comes later waits for link_release()
 *
 * For a guest about to be copied as it stands: after it answered the last thing it was
 * told, nothing is on the way to it.
 */
void link_hold(struct link *k);
void link_release(struct link *k); /* not held: fine. A responder: so does the next SYNC */

/*
 * link_call() - open a stream with a request
 * @rec:	of type @t; copied
 * @more:	bytes will follow from here; otherwise this direction ends now
 * @fds:	lent, at most FRAME_FDS_MAX, only with LINK_FDS
 * Return: 0; -ERR_UNAVAILABLE when the link is not up, -ERR_LIMIT, or what rec_encode() says.
 */
int link_call(struct link *k, unsigned method, const struct rec_type *t, const void *rec, bool more,
	      const int *fds, unsigned n_fds, const struct stream_ops *ops, void *arg,
	      struct stream **ret, struct err *e);

void stream_accept(struct stream *s, const struct stream_ops *ops, void *arg);
/* Answer. @more: bytes will follow; otherwise this direction ends now. @rec must satisfy its type. */
int stream_reply(struct stream *s, const struct rec_type *t, const void *rec, bool more,
		 const int *fds, unsigned n_fds, struct err *e);
/* Answer with encoded bytes that were checked before (a relay). */
void stream_reply_raw(struct stream *s, struct span payload, bool more);
/* Refuse or abort, with a reason for the peer. @s is gone. */
void stream_fail(struct stream *s, const struct err *why);
void stream_reset(struct stream *s); /* as above, "canceled" */

/* Send bytes; returns how many were taken (credit and room), 0..n. The rest: on `writable`. */
size_t stream_send(struct stream *s, const void *p, size_t n);
size_t stream_credit(const struct stream *s); /* what stream_push() may send now */
/* Send bytes for which there is credit, room or not: for relays, whose credit comes from the far end. */
void stream_push(struct stream *s, const void *p, size_t n);
void stream_skip(struct stream *s, uint64_t to_offset); /* bytes up to there will never come */
void stream_start_at(struct stream *s, uint64_t offset); /* before the first byte sent */
void stream_end(struct stream *s); /* no more bytes from here; twice: fine */
void stream_consumed(struct stream *s, size_t n); /* received bytes that are dealt with */
/* The same by offset, counted back from the last byte received; backwards: ignored. */
void stream_consumed_to(struct stream *s, uint64_t offset);

/* One item of a list: a record behind its length. Returns false without credit (try on `writable`). */
bool stream_send_item(struct stream *s, const struct rec_type *t, const void *rec);

void *stream_arg(const struct stream *s);
struct link *stream_link(const struct stream *s);
unsigned stream_method(const struct stream *s);
uint64_t stream_sent(const struct stream *s);	       /* offset behind the last byte sent */
/* How far the peer has dealt with them: stream_sent() less the bytes it still holds. */
uint64_t stream_peer_consumed(const struct stream *s);
bool stream_is_replied(const struct stream *s);
