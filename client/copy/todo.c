#include "copy/todo.h"

#include <errno.h>

#include "base/align.h"

static void todo_append(struct todo *todo, uint64_t start, uint64_t end, enum todo_kind kind)
{
	unsigned last = (todo->first + todo->count - 1) % TODO_MAX;

	if (start == end)
		return;
	if (todo->count && todo->run[last].kind == kind) {
		todo->run[last].end = end;
	} else {
		last = (todo->first + todo->count++) % TODO_MAX;
		todo->run[last].start = start;
		todo->run[last].end = end;
		todo->run[last].kind = kind;
	}
}

int todo_add(struct todo *todo, uint64_t offset, uint64_t len, enum todo_kind kind)
{
	uint64_t start = offset, end = offset + len;

	if (offset != todo->end || len > todo->size - offset)
		return -EINVAL;
	/* Data at both ends and zeroes between: three runs at the most. */
	if (todo->count + 3 > TODO_MAX)
		return -ENOBUFS;
	todo->end = end;
	if (kind != TODO_DATA) {
		start = min_u64(round_up(offset, todo->block), end);
		if (end < todo->size)
			end = round_down(end, todo->block);
		if (end < start)
			end = start;
		todo_append(todo, offset, start, TODO_DATA);
		todo_append(todo, start, end, kind);
		todo_append(todo, end, todo->end, TODO_DATA);
	} else {
		todo_append(todo, start, end, TODO_DATA);
	}
	return 0;
}

void todo_add_rest(struct todo *todo)
{
	todo_append(todo, todo->end, todo->size, TODO_DATA);
	todo->end = todo->size;
}

bool todo_take(struct todo *todo, uint64_t max_data, uint64_t max_other, uint64_t *offset,
	       uint64_t *len, enum todo_kind *kind)
{
	unsigned first = todo->first;
	uint64_t end;

	if (todo->count == 0 || todo->run[first].start >= todo->limit)
		return false;
	*offset = todo->run[first].start;
	*kind = todo->run[first].kind;
	end = *kind == TODO_DATA ? round_down(*offset + max_data, max_data) : *offset + max_other;
	end = min_u64(min_u64(end, todo->run[first].end), todo->limit);
	*len = end - *offset;
	todo->run[first].start = end;
	if (end == todo->run[first].end) {
		todo->first = (first + 1) % TODO_MAX;
		todo->count--;
	}
	return true;
}
