/* Many a virtual disk has one thread that does all that it finds in its queue, and tells of it with one
 * interrupt at the end: what was asked for together lands together, late, and then the cores have
 * work and the disk has none. Such a one is given half: while it is at that, the cores are at the other.
 * A disk that answers each by itself is given everything; and so is one that takes long: it may not be at
 * work but far away, and would be as late with a half. */
#include "file/pace.h"

#include <stdbool.h>

#include "base/align.h"

#define WHOLE    1024
#define TOGETHER (WHOLE * 3 / 4) /* from here on it answers all at once */
#define LONG     1000000         /* ns */
#define MEMORY   16              /* landings that an average is over */
#define DECAY    32              /* the part of most that goes with each */
#define FEW      4               /* aren't divided */

static bool is_halved(const struct pace *pace)
{
	return pace->together >= TOGETHER && pace->took < LONG;
}

unsigned pace_room(struct pace *pace, unsigned in_flight, unsigned held, int64_t now)
{
	unsigned limit;

	if (in_flight == 0)
		pace->since = now;
	if (pace->most < in_flight + held)
		pace->most = in_flight + held;
	if (!is_halved(pace))
		return held;
	limit = pace->most / 2 > FEW ? pace->most / 2 : FEW;
	return in_flight < limit ? min_u64(held, limit - in_flight) : 0;
}

void pace_landed(struct pace *pace, unsigned landed, unsigned in_flight, int64_t now)
{
	if (in_flight < FEW || landed == 0)
		return;
	pace->together += landed * WHOLE / in_flight / MEMORY;
	pace->together -= pace->together / MEMORY;
	pace->most -= (pace->most + DECAY - 1) / DECAY;
	if (landed == in_flight)
		pace->took += (now - pace->since - pace->took) / MEMORY;
}
