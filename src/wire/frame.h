/*
 * wire/frame.h - the link's frames, version 1. Pure: bytes in, frames out. Any thread.
 *
 * The link is one reliable byte stream between an *initiator* (host, client,
 * daemon towards its keeper) and a *responder* (guest, daemon, keeper). A frame is
 *
 *	u8 type, u8 flags, u8 fds, u8 zero, u32 stream, u32 len, u32 arg, u64 offset
 *	len payload bytes
 *	u8 0xa5
 *
 * Either side may be replaced in mid-frame: a daemon dies, another takes over
 * the same descriptor. So there is a way back to a frame boundary:
 *
 * FRAME-1 A zero byte between frames is padding and is skipped.
 * FRAME-2 A frame whose last byte is not 0xa5 was torn; it is never acted upon.
 *	   The new initiator sends FRAME_PAD_MAX zeros first, more than any frame
 *	   still needs, so that the tear always ends in a zero.
 * FRAME-3 Then a SYNC block (magic, versions, 16-byte nonce, generation, and
 *	   0xa5 at its end, since it can be torn too). The
 *	   responder drops what it was doing, ends all streams, and answers with
 *	   a SYNC block that repeats the nonce. The initiator discards every byte
 *	   up to that answer. What a torn stream was about, sessions repair by
 *	   their own offsets (exec.attach).
 * FRAME-4 A parser never allocates, and keeps at most one partial header.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum {
	FRAME_HEAD = 24,
	FRAME_PAYLOAD_MAX = 65536,
	FRAME_FDS_MAX = 16, /* a machine: root, disk layers, memory, state */
	FRAME_PAD_MAX = FRAME_HEAD + FRAME_PAYLOAD_MAX + 1,
	FRAME_SYNC = 64,
	FRAME_NONCE = 16,
	FRAME_VERSION = 1,
	FRAME_TRAILER = 0xa5,
};

enum frame_type {
	FRAME_PAD = 0,
	FRAME_REQ = 1,	  /* opens @stream; arg: method; payload: request record */
	FRAME_RES = 2,	  /* the one reply; payload: reply record */
	FRAME_DATA = 3,	  /* offset: of the first byte; payload: bytes */
	FRAME_WINDOW = 4, /* offset: bytes the receiver has consumed so far, skipped ones not counted */
	FRAME_END = 5,	  /* offset: length of the stream; the sender sends no more data */
	FRAME_RESET = 6,  /* arg: error code; payload: failure record; both directions are over */
	FRAME_TYPE_N,
};

struct frame {
	uint8_t type;
	uint8_t fds; /* descriptors that travel with it (Unix sockets only) */
	uint32_t stream, arg, len;
	uint64_t offset;
};

struct frame_sync {
	uint16_t version_min, version_max;
	unsigned char nonce[FRAME_NONCE];
	uint64_t generation;
};

void frame_put(unsigned char head[FRAME_HEAD], const struct frame *f);
void frame_put_sync(unsigned char block[FRAME_SYNC], const struct frame_sync *s);

enum frame_event {
	FRAME_MORE,    /* all input used; feed more */
	FRAME_HEADER,  /* f is set; payload pieces follow if f.len */
	FRAME_PAYLOAD, /* piece is set: the next bytes of f's payload, lent from the input */
	FRAME_DONE,    /* trailer seen: the frame may be acted upon */
	FRAME_SYNCED,  /* sync is set */
};

struct frame_parser {
	struct frame f;
	struct frame_sync sync;
	const unsigned char *piece;
	size_t piece_len;
	/* private */
	unsigned char hold[FRAME_SYNC];
	size_t held;
	uint32_t left; /* payload bytes to come */
	uint8_t state;
	bool is_initiator, expect_nonce;
	unsigned char nonce[FRAME_NONCE];
};

/* @is_initiator: discards everything until a SYNC with the nonce of frame_parser_expect(). */
void frame_parser_init(struct frame_parser *p, bool is_initiator);
void frame_parser_expect(struct frame_parser *p, const unsigned char nonce[FRAME_NONCE]);

/*
 * frame_parse() - take bytes from @*p, @*n (both advanced) up to the next event
 *
 * A payload may come in several FRAME_PAYLOAD pieces; nothing of a frame counts
 * before FRAME_DONE. A responder that meets a torn or malformed frame silently
 * hunts for the next SYNC; for an initiator it is an error: its peer lies.
 * Return: enum frame_event; -ERR_INVALID, -ERR_LIMIT: the link is over.
 */
int frame_parse(struct frame_parser *fp, const unsigned char **p, size_t *n, struct err *e);
