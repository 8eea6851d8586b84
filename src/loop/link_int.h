/*
 * loop/link_int.h - the two halves of the link: link.c moves bytes and frames,
 * stream.c knows calls, credit and their ends
 */
#pragma once
#include "base/list.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "wire/frame.h"

enum {
	BUCKETS = 64,
	READ_SIZE = 65536,
	READS_PER_EVENT = 4,	    /* then other descriptors get their turn */
	DATA_SIZE = 32768,	    /* of one frame: small enough to interleave, large enough to be cheap */
	OUT_SOFT = 262144,	    /* above: stream_send() takes nothing */
	OUT_HARD = 4 * 1024 * 1024, /* above: nothing is read, since reading makes answers */
	OUT_KEEP = 262144,	    /* an empty output buffer larger than this is given back */
	FDS_QUEUED = 32,
	LAST_READS = 64, /* of a peer that closed: more than a socket holds */
};

struct stream {
	struct link *link;
	struct list hash, blocked;
	const struct stream_ops *ops;
	void *arg;
	uint32_t id;
	unsigned method;
	bool is_opener, accepted, replied, tx_ended, rx_ended, rx_started, dead;
	bool owes_closed; /* complete by our own doing: `closed` follows from the loop */
	/*
	 * Offsets name bytes and may jump. Credit counts bytes and never jumps: a
	 * sender that skips neither gains nor loses any.
	 */
	uint64_t tx_offset, tx_sent, tx_acked;	  /* next byte; bytes sent; consumed by the peer */
	uint64_t rx_offset, rx_held, rx_consumed; /* next byte; bytes not yet dealt with; dealt with */
	uint64_t rx_granted;			  /* rx_consumed as last told to the peer */
};

/* Descriptors wait for the byte they travel with. */
struct fd_mark {
	uint64_t at; /* position in all output ever queued */
	int fds[FRAME_FDS_MAX];
	unsigned n;
	struct list link;
};

struct link {
	struct loop *loop;
	const struct link_ops *ops;
	void *arg;
	int fd;
	unsigned flags;
	bool up, is_down, freed;
	bool is_mute; /* the peer reads no more: output is dropped */
	unsigned busy; /* callbacks on the stack: LINK-3 */
	uint64_t generation, heard_ns;
	struct loop_io io;
	struct loop_call flush_call, reap_call;
	struct list streams[BUCKETS], blocked, dead, marks;
	unsigned n_streams;
	uint32_t next_id;
	struct frame_parser parser;
	unsigned char *payload; /* of a frame that came in pieces; FRAME_PAYLOAD_MAX */
	const unsigned char *whole;
	size_t have;
	int fds[FDS_QUEUED];
	unsigned n_fds;
	unsigned char *out; /* [out_head, out_len) waits to be written */
	size_t out_head, out_len, out_cap;
	uint64_t out_written; /* position of out[out_head] in all output */
	bool is_held;
	uint64_t hold_at; /* output from here on waits */
};

static inline size_t link_out_used(const struct link *k)
{
	return k->out_len - k->out_head;
}

/* Of that, what may go now. */
static inline size_t link_out_ready(const struct link *k)
{
	size_t used = link_out_used(k);

	if (!k->is_held || k->out_written + used <= k->hold_at)
		return used;
	return (size_t)(k->hold_at - k->out_written);
}

/* ---- link.c ---- */

/* Around callbacks, which may free the link: LINK-3. It stays in memory until the last leave. */
void link_enter(struct link *k);
void link_leave(struct link *k);
void link_put_frame(struct link *k, const struct frame *f, const void *payload);
/* The next frame put carries copies of @fds. */
int link_mark_fds(struct link *k, const int *fds, unsigned n, struct err *e);

/* ---- stream.c ---- */

/* Act on a whole frame. Return: 0, or an error: the peer broke the protocol. */
int link_dispatch(struct link *k, const struct frame *f, struct span payload, struct err *e);
void link_close_streams(struct link *k, const struct err *why);
void link_retire_streams(struct link *k); /* without callbacks */
void link_settle(struct link *k);	  /* say `closed` where it is owed */
void link_reap(struct link *k);		  /* settle, then free what is over */
void link_close_fds(const int *fds, unsigned n);
