/* engine/claim.h - the request for which a spare was taken. Private to engine/. Thread: the loop's. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/span.h"
#include "image/store.h"
#include "loop/loop.h"

struct sandbox;

struct claim {
	struct sandbox *sandbox;
	uint64_t pool;		  /* its serial */
	struct span request;	  /* encoded sandbox_create, owned: it may have to be asked again */
	struct loop_call go;	  /* the plan goes on, from the loop */
	unsigned from_step;	  /* of the plan: what is before was done for nobody */
	unsigned waits;		  /* parts of the handing over that are not back */
	bool looks;		  /* one of them is a job on a worker */
	struct image now;	  /* what its template means now */
};

struct claim *claim_free(struct claim *c); /* NULL: fine; returns NULL */
