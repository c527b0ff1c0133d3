/* session-bug: bugs that tests/sim plants, to see that it finds them. Otherwise there is none. */
#ifndef NDIO_SESSION_BUG_H
#define NDIO_SESSION_BUG_H

enum session_bug {
	BUG_NONE,
	BUG_NO_FENCE, /* the epoch isn't told, and nothing is waited for */
	BUG_NO_LOG,
	BUG_REPLAY_ORDER, /* the newest first */
	BUG_TRIM_REPLAYED,
	BUG_FLUSH_COVERS,   /* what was acknowledged until it landed */
	BUG_FREED_EARLY,    /* when a flush is sent */
	BUG_OLD_CONNECTION, /* one isn't ended */
	BUG_DONE_TWICE,
	BUG_NO_VERIFIER, /* every server is taken for the one before */
	BUG_LET_THROUGH, /* writes, while the log is replayed */
};

#ifndef SESSION_BUG
#define SESSION_BUG BUG_NONE
#endif

#define HAS_BUG(bug) (SESSION_BUG == (bug))

#endif
