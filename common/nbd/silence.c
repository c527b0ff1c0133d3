/* silence: since is when the server last made progress, and limit the time it has from there. In the
 * first eighth nobody counts bytes, since answers come. When the limit is reached and enough have
 * moved it begins anew; but received goes on, so that a stream without end has one. */
#include "nbd/silence.h"

#include "base/align.h"

#define LATE 8           /* this part of the limit */
#define STEP 1000        /* ms: so soon it is seen that the limit is another */
#define MORE (64 * 1024) /* bytes that an answer may have besides its data: errors, extents */

void silence_asked(struct silence *silence, uint64_t bytes, int64_t now)
{
	silence->due += bytes;
	if (silence->owed++ > 0)
		return;
	silence->since = now;
	silence->moved = silence->received = 0;
}

void silence_answered(struct silence *silence, uint64_t bytes, int64_t now)
{
	silence->due -= bytes;
	silence->owed--;
	silence->since = now;
	silence->moved = silence->received = 0;
}

bool silence_is_late(const struct silence *silence, int64_t now)
{
	return silence->owed && now - silence->since >= silence->limit / LATE;
}

void silence_moved(struct silence *silence, uint64_t sent, uint64_t received)
{
	silence->moved += sent + received;
	silence->received += received;
}

int64_t silence_left(const struct silence *silence, int64_t now)
{
	int64_t left = silence->since + silence->limit - now;
	int64_t step = min_u64(silence->limit / LATE + 1, STEP);

	if (silence->owed == 0)
		return -1;
	return left <= 0 ? 0 : left < step ? left : step;
}

void silence_looked(struct silence *silence, int64_t ms)
{
	if (ms > silence->limit / 4 + 1)
		silence->since += ms;
}

bool silence_is_over(struct silence *silence, int64_t now)
{
	uint64_t most = silence->due + (uint64_t)silence->owed * MORE;

	if (silence->owed == 0 || now - silence->since < silence->limit)
		return false;
	if (silence->received > most ||
	    silence->moved < (uint64_t)silence->limit * SILENCE_RATE / 1000)
		return true;
	silence->since = now;
	silence->moved = 0;
	return false;
}
