/* sluice-run tune: times the candidates of a file of sluice tune and keeps what was the fastest in a file of records.
 */
#include "runtime/tools/tune.h"
#include "runtime/tools/options.h"
#include "runtime/tools/run.h"

#include "sluice/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define GPU_FLOP_RATE 790e12 /* bf16 with matrix instructions, sustained, of an H100 or H200 */
#define USUAL_SECONDS 120.0

/* Kernels that are timed together; the first one names the job. */
typedef struct tune_job {
  uint32_t entries[TUNE_MOST_ENTRIES]; /* of candidate 0 */
  uint32_t count;
} tune_job;

typedef struct tuner {
  tune_file file;
  tune_job *jobs;
  uint32_t job_count, done; /* done: of all, those of the record file included */
  uint32_t left_out;        /* entries that no step of their sizes runs */
  sluice_device_facts facts;
  sluice_tuning records;
  const char *output;
  char date[11];
  bench_random *random;
  tune_limits limits;
  double end; /* of the budget */
  const tune_job *at;
  bool terminal, printed; /* stderr is one; the table has begun */
} tuner;

static const tune_entry *entry_of(const tuner *t, const tune_job *job, uint32_t i) {
  return &t->file.candidates[0].entries[job->entries[i]];
}

/* ---- Jobs ---- */

/* Takes entry `first` and those that its launches serve too. */
static sluice_status *add_job(tuner *t, uint32_t first, bool *taken) {
  const tune_candidate *usual = &t->file.candidates[0];
  bench_group group;
  SLUICE_TRY(tune_find_group(usual->model, &usual->entries[first], &group));
  sluice_status *status = NULL;
  tune_job *job = &t->jobs[t->job_count];
  *job = (tune_job){.entries = {first}, .count = 1};
  for (uint32_t i = first + 1; i < usual->count && group.count && !status && job->count < TUNE_MOST_ENTRIES; i++) {
    bool same = false;
    if (!taken[i] && usual->entries[i].from == usual->entries[first].from)
      status = tune_is_in_group(usual->model, &group, &usual->entries[i], &same);
    if (!same) continue;
    taken[i] = true;
    job->entries[job->count++] = i;
  }
  if (group.count)
    t->job_count++;
  else
    t->left_out++;
  sluice_release(group.launches);
  return status;
}

static sluice_status *find_jobs(tuner *t) {
  const uint32_t count = t->file.candidates[0].count;
  bool *taken = sluice_allocate_array(count, sizeof *taken);
  t->jobs = sluice_allocate_array((size_t)count + 1, sizeof *t->jobs);
  sluice_status *status = taken && t->jobs ? NULL : sluice_out_of_memory();
  for (uint32_t i = 0; i < count && !status; i++)
    if (!taken[i]) status = add_job(t, i, taken);
  sluice_release(taken);
  return status;
}

/* ---- Records ---- */

/* All but what was measured. Its strings belong to others. */
static sluice_tuning_record key_of(const tuner *t, const tune_entry *entry) {
  return (sluice_tuning_record){.gpu = (char *)(uintptr_t)t->facts.product,
                                .target = t->file.candidates[0].model->target,
                                .driver = (char *)(uintptr_t)t->facts.driver,
                                .processors = t->facts.processors,
                                .clock_mhz = t->facts.clock_mhz,
                                .memory_mhz = t->facts.memory_mhz,
                                .memory_bytes = (int64_t)t->facts.memory_bytes,
                                .date = (char *)(uintptr_t)t->date,
                                .sluice = (char *)(uintptr_t)sluice_version(),
                                .kernel = entry->kernel,
                                .shape = entry->shape,
                                .size = (char *)(uintptr_t)"tokens",
                                .from = entry->from,
                                .to = entry->to,
                                .at = entry->at};
}

/* Whether the record file has the job already, by this version. */
static bool is_done(const tuner *t, const tune_job *job) {
  for (uint32_t i = 0; i < job->count; i++) {
    const sluice_tuning_record key = key_of(t, entry_of(t, job, i)), *found = sluice_tuning_find(&t->records, &key);
    if (!found || strcmp(found->sluice, sluice_version()) != 0) return false;
  }
  return true;
}

/* The configuration of an entry of candidate 0 in candidate `index`; the default's where that has none. */
static char *configuration_in(const tuner *t, uint32_t index, const tune_entry *entry) {
  const tune_entry *own = tune_find_entry(&t->file.candidates[index], entry);
  return own ? own->configuration : entry->configuration;
}

static uint32_t count_timed(const tune_result *result) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < TUNE_MOST_CANDIDATES; i++) count += result->times[i].timed;
  return count;
}

static sluice_status *keep(tuner *t, const tune_job *job, const tune_result *result) {
  const tune_candidate_time *best = &result->times[result->winner];
  for (uint32_t i = 0; i < job->count; i++) {
    const tune_entry *entry = entry_of(t, job, i);
    sluice_tuning_record record = key_of(t, entry);
    const bool second = result->runner_up != UINT32_MAX;
    record.configuration = configuration_in(t, result->winner, entry);
    record.runner_up = second ? configuration_in(t, result->runner_up, entry) : (char *)(uintptr_t)"{}";
    record.runner_up_us = second ? result->times[result->runner_up].median_us : 0;
    record.median_us = best->median_us;
    record.spread_us = best->spread_us;
    record.default_us = result->times[0].median_us;
    record.floor_us = result->floor_us;
    record.candidates = count_timed(result);
    record.calls = (int64_t)best->calls;
    record.check = (char *)(uintptr_t)(best->exact ? "exact" : "close");
    record.output = (char *)(uintptr_t)result->output;
    SLUICE_TRY(sluice_tuning_add(&t->records, &record));
  }
  return sluice_tuning_save(&t->records, t->output);
}

/* ---- What is printed ---- */

static void clear_line(const tuner *t) {
  if (t->terminal) fputs("\r\033[K", stderr);
}

static void show_progress(void *user, uint32_t left, double best_us) {
  const tuner *t = user;
  if (!t->terminal) return;
  char filled[31];
  const size_t count = (size_t)(30.0 * t->done / (t->job_count ? t->job_count : 1));
  memset(filled, '=', count);
  filled[count] = 0;
  const tune_entry *entry = entry_of(t, t->at, 0);
  fprintf(stderr, "\r\033[Ktuning [%-30s] %u of %u  %s, %lld tokens: %u left, %.2f us", filled, t->done, t->job_count,
          entry->kernel, (long long)entry->to, left, best_us);
}

static void complain(void *user, uint32_t candidate, const char *why) {
  const tuner *t = user;
  const tune_entry *entry = entry_of(t, t->at, 0);
  clear_line(t);
  fprintf(stderr, "warning: %s %s, %lld to %lld tokens: candidate %u is not timed: %s\n", entry->kernel, entry->shape,
          (long long)entry->from, (long long)entry->to, candidate, why);
}

static sluice_status *print_result(tuner *t, const tune_job *job, const tune_result *result) {
  clear_line(t);
  if (!t->printed)
    printf("%-16s %-44s %14s %10s %10s %6s %6s  %s\n", "kernel", "shape", "tokens", "default us", "best us", "gain",
           "floor", "configuration");
  t->printed = true;
  for (uint32_t i = 0; i < job->count; i++) {
    const tune_entry *entry = entry_of(t, job, i);
    const tune_candidate_time *usual = &result->times[0], *best = &result->times[result->winner];
    char range[32];
    snprintf(range, sizeof range, "%lld-%lld", (long long)entry->from, (long long)entry->to);
    printf("%-16s %-44s %14s %10.2f %10.2f %5.1f%% %5.0f%%  %s%s\n", entry->kernel, entry->shape, range,
           usual->median_us, best->median_us, 100 * (usual->median_us / best->median_us - 1),
           100 * result->floor_us / best->median_us,
           result->winner ? configuration_in(t, result->winner, entry) : "the default",
           result->clear ? "" : " (not certain: the time was over)");
  }
  return fflush(stdout) == 0 ? NULL : sluice_error(SLUICE_IO, "cannot write to standard output");
}

/* ---- The run ---- */

static sluice_status *run_job(tuner *t, const tune_job *job, uint32_t jobs_left) {
  tune_result result;
  t->at = job;
  const double left = t->end - tool_now();
  t->limits.seconds = fmax(left / jobs_left, 0.05);
  SLUICE_TRY(sluice_annotate(tune_time(&t->file, entry_of(t, job, 0), &t->limits, t->random, &result), "%s %s",
                             entry_of(t, job, 0)->kernel, entry_of(t, job, 0)->shape));
  SLUICE_TRY(keep(t, job, &result));
  return print_result(t, job, &result);
}

static sluice_status *run_jobs(tuner *t) {
  uint32_t found = 0;
  for (uint32_t i = 0; i < t->job_count; i++) found += is_done(t, &t->jobs[i]);
  if (found) fprintf(stderr, "%u of %u kernels are in %s already\n", found, t->job_count, t->output);
  t->done = found;
  for (uint32_t i = 0; i < t->job_count; i++) {
    if (is_done(t, &t->jobs[i])) continue;
    if (tool_now() > t->end) {
      clear_line(t);
      fprintf(stderr, "the time is over: %u of %u kernels are left; run it again to go on\n", t->job_count - t->done,
              t->job_count);
      return NULL;
    }
    SLUICE_TRY(run_job(t, &t->jobs[i], t->job_count - t->done));
    t->done++;
  }
  clear_line(t);
  fprintf(stderr, "%u kernels are in %s", t->job_count, t->output);
  if (t->left_out) fprintf(stderr, "; %u have no launch in such steps", t->left_out);
  fputc('\n', stderr);
  return NULL;
}

static sluice_status *prepare(tuner *t, const char *path, const sluice_model_options *options) {
  struct stat info;
  if (stat(t->output, &info) == 0 && S_ISREG(info.st_mode)) SLUICE_TRY(sluice_tuning_read(t->output, &t->records));
  SLUICE_TRY(tune_file_open(path, options, &t->file));
  sluice_model *model = t->file.candidates[0].model;
  SLUICE_TRY(model->device->driver->describe(model->device, &t->facts));
  SLUICE_TRY(find_jobs(t));
  SLUICE_TRY(bench_random_create(&t->random));
  SLUICE_TRY(bench_memory_rate(model, &t->limits.rates.bytes));
  if (!model->device->host_memory && model->plan.header->dtype == SLUICE_BF16) t->limits.rates.flops = GPU_FLOP_RATE;
  const time_t now = time(NULL);
  struct tm day;
  if (!gmtime_r(&now, &day) || !strftime(t->date, sizeof t->date, "%Y-%m-%d", &day))
    return sluice_error(SLUICE_INTERNAL, "the clock has no date");
  return NULL;
}

sluice_status *command_tune(int argc, char **argv) {
  const char *device = NULL, *file;
  uint64_t threads = 0;
  double seconds = USUAL_SECONDS;
  tuner t = {.terminal = isatty(STDERR_FILENO)};
  const tool_option options[] = {
      {"-o", TOOL_OUTPUT, &t.output, "FILE", "the records; kernels that are in it already are not timed again"},
      {"--device", TOOL_TEXT, &device, "D", "host, cuda:N, hip:N (host)"},
      {"--seconds", TOOL_REAL, &seconds, "S", "time for all kernels together (120)"},
      {"--threads", TOOL_COUNT, &threads, "N", "threads on the host (0: one for each core)"},
  };
  const tool_command command = {
      "sluice-run tune FILE.sluice -o RECORD.jsonl [options]",
      "Times the configurations in a file of \"sluice tune\" on this machine, which needs no compiler, and writes "
      "which\n"
      "was the fastest: a record a line, for \"sluice compile --tuning\".\n"
      "\n"
      "Candidate 0 of each kernel is the target's default. Each other one runs on the same operands first, and is "
      "left\n"
      "out unless its output is the default's: indices equal, other values within 1/64 of theirs or of their root\n"
      "mean square. Then all run in turn until one is faster by three standard errors of the median, or the time is\n"
      "over. The default stays unless another is faster beyond doubt and by 1 %.\n"
      "\n"
      "The file is complete after every kernel. An interrupted run, or one whose time was over, goes on where it "
      "was.\n",
      options, sizeof options / sizeof options[0]};
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &file, &help));
  if (help) return NULL;
  if (!t.output) return sluice_error(SLUICE_USAGE, "-o RECORD.jsonl is missing; see --help");
  if (!(seconds > 0)) return sluice_error(SLUICE_USAGE, "--seconds must be positive");
  if (threads > 4096)
    return sluice_error(SLUICE_USAGE, "--threads: %llu threads are too many", (unsigned long long)threads);
  t.limits.progress = show_progress;
  t.limits.complain = complain;
  t.limits.user = &t;
  sluice_status *status = prepare(&t, file, &(sluice_model_options){.device = device, .threads = (unsigned)threads});
  t.end = tool_now() + seconds;
  if (!status) status = run_jobs(&t);
  bench_random_free(t.random);
  tune_file_close(&t.file);
  sluice_tuning_free(&t.records);
  sluice_release(t.jobs);
  return status;
}
