#include "terminal/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "terminal/json.h"
#include "terminal/number.h"
#include "terminal/say.h"

#define BAR_MAX      50
#define INTERVAL_MS  200             /* between two bars */
#define JSON_PAUSE   1.0             /* seconds between two lines for scripts; */
#define FIRST_PAUSE  2.0             /* in a log for people the first comes early, */
#define LAST_PAUSE   32.0            /* and then fewer and fewer */
#define MEMORY       5.0             /* seconds that the rate looks back, more or less */
#define LEFT_MAX     (100 * 86400.0) /* seconds; more isn't worth telling */
#define LAST_WORD_MS 1000            /* how long a script that doesn't read can hold us up */

static volatile sig_atomic_t asked; /* by SIGUSR1 */
static volatile sig_atomic_t asked_fd = -1;

static double progress_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

bool progress_parse(const char *value, struct progress_options *options)
{
	uint64_t fd = STDERR_FILENO;
	int mode;

	if (!value) {
		options->how = PROGRESS_TEXT;
		return true;
	}
	if (strcmp(value, "json") != 0 && !parse_number(value, INT_MAX, &fd))
		return false;
	mode = fcntl((int)fd, F_GETFL);
	if (mode < 0 || (mode & O_ACCMODE) == O_RDONLY)
		return false;
	*options = (struct progress_options){ .how = PROGRESS_JSON, .fd = (int)fd };
	return true;
}

/* ---- the signal ---- */

static void ask_by_signal(int number)
{
	const uint64_t one = 1;
	int before = errno;
	ssize_t n;

	(void)number;
	asked = 1;
	if (asked_fd >= 0) {
		n = write(asked_fd, &one, sizeof(one));
		(void)n; /* it is only full when it is readable anyway */
	}
	errno = before;
}

void progress_catch_signal(void)
{
	const struct sigaction action = { .sa_handler = ask_by_signal, .sa_flags = SA_RESTART };

	sigaction(SIGUSR1, &action, NULL);
}

/* ---- for people ---- */

static unsigned columns(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

/* "[=====>     ] ", as wide as the terminal has room beside rest bytes of text. */
static void draw_bar(double part, size_t rest)
{
	char bar[BAR_MAX + 1];
	size_t width = columns(), full;

	width = width > rest + 4 ? width - rest - 4 : 0;
	if (width > BAR_MAX)
		width = BAR_MAX;
	full = part * width;
	memset(bar, ' ', width);
	memset(bar, '=', full);
	if (full < width)
		bar[full] = '>';
	bar[width] = '\0';
	if (width > 1)
		fprintf(stderr, "[%s] ", bar);
}

/* "1:05", "2:00:00". */
static const char *time_text(double seconds, char text[32])
{
	unsigned long all = seconds + 0.5, hours = all / 3600;

	if (hours)
		snprintf(text, 32, "%lu:%02lu:%02lu", hours, all / 60 % 60, all % 60);
	else
		snprintf(text, 32, "%lu:%02lu", all / 60, all % 60);
	return text;
}

static double part_of(uint64_t done, uint64_t total)
{
	return total == 0 ? 1 : (double)done / total;
}

/* Seconds, or -1 where nobody can say. */
static double time_left(const struct progress *progress, uint64_t done, uint64_t total)
{
	double left;

	if (total == UINT64_MAX || progress->rate <= 0)
		return -1;
	left = (total - done) / progress->rate;
	return left < LEFT_MAX ? left : -1;
}

/* "120 MiB/s, 0:05 left", or at its end "..., in 0:09". */
static void describe_pace(const struct progress *progress, double left, bool ended, char *text,
			  size_t size)
{
	bool total = ended || left < 0;
	char rate[16], when[32];

	if (progress->waiting && !ended) {
		snprintf(text, size, "waiting for the server");
		return;
	}
	size_text(progress->rate, rate);
	time_text(total ? progress->sampled - progress->start : left, when);
	snprintf(text, size, "%s/s, %s%s%s", rate,
		 ended ? "in " :
		 total ? "after " :
			 "",
		 when, total ? "" : " left");
}

/* "42%  420 MiB of 1 GiB", and how fast that is. */
static void progress_describe(const struct progress *progress, uint64_t done, uint64_t total,
			      bool ended, char *text, size_t size)
{
	char amount[16], all[16], pace[64];

	size_text(done, amount);
	describe_pace(progress, time_left(progress, done, total), ended, pace, sizeof(pace));
	if (total == UINT64_MAX)
		snprintf(text, size, "%s, %s", amount, pace);
	else
		snprintf(text, size, "%3u%%  %s of %s, %s", (unsigned)(part_of(done, total) * 100),
			 amount, size_text(total, all), pace);
}

static void draw(const struct progress *progress, uint64_t done, uint64_t total, bool ended)
{
	char text[128];

	progress_describe(progress, done, total, ended, text, sizeof(text));
	flockfile(stderr);
	fputc('\r', stderr);
	if (total != UINT64_MAX)
		draw_bar(part_of(done, total), strlen(text));
	fprintf(stderr, "%s\033[K%s", text, ended ? "\n" : "");
	fflush(stderr);
	say_over(!ended);
	funlockfile(stderr);
}

static void progress_say_line(const struct progress *progress, uint64_t done, uint64_t total,
			      bool ended)
{
	char text[128];

	progress_describe(progress, done, total, ended, text, sizeof(text));
	say_error("%s", text + strspn(text, " "));
}

/* ---- for scripts ---- */

static struct json_object *as_json(const struct progress *progress, uint64_t done, uint64_t total,
				   const char *state)
{
	struct json_object *object = json_object_new_object();
	double left = time_left(progress, done, total);

	json_add_text(object, "state", state);
	json_add_number(object, "done", done);
	if (total != UINT64_MAX) {
		json_add_number(object, "total", total);
		json_add_number(object, "percent", part_of(done, total) * 100);
	}
	json_add_number(object, "rate", progress->rate);
	json_add_number(object, "seconds", progress->sampled - progress->start);
	if (left >= 0 && !progress->waiting)
		json_add_number(object, "left", left + 0.5);
	return object;
}

/* A line is left out where the script doesn't read what came before. */
static void tell_script(struct progress *progress, uint64_t done, uint64_t total, const char *state,
			int wait_ms)
{
	struct pollfd fd = { .fd = progress->options.fd, .events = POLLOUT };
	struct json_object *object = as_json(progress, done, total, state);
	char line[512];
	ssize_t n;
	int len;

	len = snprintf(line, sizeof(line), "%s\n",
		       json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
	json_object_put(object);
	if (poll(&fd, 1, wait_ms) <= 0)
		return;
	n = write(fd.fd, line, len);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		progress->options.how = PROGRESS_OFF; /* it went away */
}

/* ---- when ---- */

void progress_start(struct progress *progress, const struct progress_options *options, int wake_fd,
		    uint64_t done)
{
	double time = progress_now();

	*progress = (struct progress){
		.options = *options,
		.terminal = isatty(STDERR_FILENO),
		.start = time,
		.begun = done,
		.drawn = time,
		.pause = FIRST_PAUSE,
		.sampled = time,
		.sampled_done = done,
	};
	if (options->how == PROGRESS_JSON)
		progress->pause = JSON_PAUSE;
	else if (progress->terminal)
		progress->pause = INTERVAL_MS / 1e3;
	asked_fd = wake_fd;
}

int progress_timeout(const struct progress *progress)
{
	return progress->options.how == PROGRESS_OFF ? -1 : INTERVAL_MS;
}

/* The rate of late: what was measured just now counts as much as the time that it took. */
static void take_sample(struct progress *progress, double time, uint64_t done)
{
	double seconds = time - progress->sampled, rate;

	if (seconds <= 0 || done < progress->sampled_done)
		return;
	rate = (done - progress->sampled_done) / seconds;
	if (progress->sampled == progress->start)
		progress->rate = rate;
	else
		progress->rate += (rate - progress->rate) * seconds / (seconds + MEMORY);
	progress->sampled = time;
	progress->sampled_done = done;
}

static void progress_tell(struct progress *progress, uint64_t done, uint64_t total)
{
	if (progress->options.how == PROGRESS_JSON) {
		tell_script(progress, done, total, progress->waiting ? "waiting" : "running", 0);
	} else if (progress->terminal) {
		draw(progress, done, total, false);
	} else {
		progress_say_line(progress, done, total, false);
		progress->told = true;
		if (progress->pause < LAST_PAUSE)
			progress->pause *= 2;
	}
}

void progress_update(struct progress *progress, uint64_t done, uint64_t total, bool waiting)
{
	double time = progress_now();

	progress->waiting = waiting;
	if (time - progress->sampled >= INTERVAL_MS / 1e3 || asked)
		take_sample(progress, time, done);
	if (asked) {
		asked = 0;
		progress_say_line(progress, done, total, false);
	}
	if (progress->options.how == PROGRESS_OFF || time - progress->drawn < progress->pause)
		return;
	progress->drawn = time;
	progress_tell(progress, done, total);
}

void progress_end(struct progress *progress, uint64_t done, uint64_t total, bool whole)
{
	asked_fd = -1;
	take_sample(progress, progress_now(), done);
	if (progress->sampled > progress->start)
		progress->rate = (progress->sampled_done - progress->begun) /
				 (progress->sampled - progress->start);
	if (progress->options.how == PROGRESS_JSON)
		tell_script(progress, done, total, whole ? "done" : "stopped", LAST_WORD_MS);
	else if (progress->options.how == PROGRESS_TEXT && progress->terminal)
		draw(progress, done, total, true);
	else if (progress->told)
		progress_say_line(progress, done, total, true);
	progress->options.how = PROGRESS_OFF;
}
