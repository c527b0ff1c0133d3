#include "integrity/journal-replay.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

static unsigned seq_before(unsigned seq)
{
	return (seq + JOURNAL_SEQS - 1) % JOURNAL_SEQS;
}

static unsigned seq_after(unsigned seq)
{
	return (seq + 1) % JOURNAL_SEQS;
}

void journal_replay_init(struct journal_replay *replay, const struct layout *layout)
{
	*replay = (struct journal_replay){ .layout = layout, .empty = true };
}

void journal_replay_see(struct journal_replay *replay, const uint8_t *bytes)
{
	uint32_t section = replay->seen++;
	unsigned sector, seqs = journal_section_seqs(replay->layout, bytes, section, &sector);

	assert(section < replay->layout->sections);
	if (seqs == 0 && !replay->damaged) {
		replay->damaged = true;
		replay->damaged_section = section;
		replay->damaged_sector = sector;
	}
	replay->empty = replay->empty && journal_section_is_empty(replay->layout, bytes);
	for (unsigned i = 0; i < JOURNAL_SEQS; i++) {
		if (replay->seqs[i].prefix == section && seqs == 1u << i)
			replay->seqs[i].prefix++;
		if (seqs & 1u << i) {
			replay->seqs[i].occurs = true;
			replay->seqs[i].last = section;
			replay->seqs[i].behind = 0;
			replay->seqs[i].ended = false;
		} else if (replay->seqs[i].occurs && !replay->seqs[i].ended) {
			if (seqs == 1u << seq_before(i))
				replay->seqs[i].behind++;
			else
				replay->seqs[i].ended = true;
		}
	}
}

/* The newest number: the one before the first that doesn't occur. If 3 is none of those that occur,
 * that is the first of those behind all that do. JOURNAL_SEQS: all occur. */
static unsigned find_last(const struct journal_replay *replay)
{
	unsigned unused = 0;

	if (!replay->seqs[JOURNAL_SEQS - 1].occurs) {
		unused = JOURNAL_SEQS - 1;
		while (unused > 0 && !replay->seqs[unused - 1].occurs)
			unused--;
	} else {
		while (unused < JOURNAL_SEQS && replay->seqs[unused].occurs)
			unused++;
		if (unused == JOURNAL_SEQS)
			return JOURNAL_SEQS;
	}
	return seq_before(unused);
}

int journal_replay_decide(const struct journal_replay *replay, const char *name,
			  struct journal_plan *plan, struct error *err)
{
	uint32_t sections = replay->layout->sections, found;
	unsigned last, wanted;

	assert(replay->seen == sections);
	if (replay->damaged)
		return error_set(err, EIO,
				 "%s: integrity: the journal is damaged: section %" PRIu32
				 ", sector %u",
				 name, replay->damaged_section, replay->damaged_sector);
	last = find_last(replay);
	if (last == JOURNAL_SEQS)
		return error_set(err, EIO,
				 "%s: integrity: the journal is damaged: its sections "
				 "have all numbers at once",
				 name);
	wanted = seq_before(last);
	*plan = (struct journal_plan){
		.start = (replay->seqs[last].last + 1) % sections,
		.seq = wanted,
	};
	if (plan->start == 0) {
		plan->seq = last;
		found = replay->seqs[last].prefix;
	} else {
		found = replay->seqs[last].behind;
		if (plan->start + found == sections)
			found += replay->seqs[last].prefix;
	}
	plan->erase = found < sections;
	plan->erase_seq = seq_before(wanted);
	plan->next = plan->erase ? 0 : plan->start;
	plan->next_seq = plan->erase ? seq_after(plan->erase_seq) : seq_after(plan->seq);
	/* Numbers one apart from both sides: erasing it was interrupted, at its very end. */
	if (!replay->empty &&
	    (replay->seqs[wanted].occurs || !replay->seqs[plan->erase_seq].occurs))
		plan->take = found;
	return 0;
}

uint32_t journal_plan_section(const struct journal_plan *plan, const struct layout *layout,
			      uint32_t i, unsigned *seq)
{
	uint64_t section = (uint64_t)plan->start + i;

	assert(i < plan->take);
	*seq = section < layout->sections ? plan->seq : seq_after(plan->seq);
	return section % layout->sections;
}
