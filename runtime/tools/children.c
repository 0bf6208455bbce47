#include "runtime/tools/children.h"

#include "runtime/tools/child_reports.h"
#include "runtime/tools/run.h"
#include "sluice/program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE 5.0 /* seconds for children to end by themselves, and then for being told to */
enum { MESSAGE_BYTES = 1 << 18 };

typedef struct children {
  uint32_t ranks, running;
  pid_t process[SLUICE_MOST_RANKS]; /* 0: has ended */
  int errors[SLUICE_MOST_RANKS];    /* what each writes to standard error; -1: closed */
  child_reports reports;
  int signals;   /* signalfd */
  int typed;     /* the last signal that was typed at the terminal, which rank 0 got, too; 0: none */
  int ended_by;  /* the signal that this process is to end with, once all children have; 0: none */
  int code;      /* of the first that failed */
  double failed; /* when; 0: none has */
  int sent;      /* the last signal that was sent to end them */
  sigset_t blocked, before;
} children;

static const int fatal[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/* ---- Starting ---- */

static void replace(int descriptor, int with) {
  if (with >= 0) dup2(with, descriptor);
}

/* What a child does first. Ranks other than 0 are in a process group of their own: what is typed at a terminal is for
 * rank 0, which may go on after an interrupt. */
static sluice_status *become_child(children *c, uint32_t rank, int errors, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) raise(SIGKILL);
  char name[16];
  snprintf(name, sizeof name, "sluice rank %u", rank % 1000);
  prctl(PR_SET_NAME, name);
  for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) {
    struct sigaction old;
    if (sigaction(fatal[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) signal(fatal[i], SIG_DFL);
  }
  sigprocmask(SIG_SETMASK, &c->before, NULL);
  if (rank) {
    setpgid(0, 0);
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    replace(STDIN_FILENO, nothing);
    replace(STDOUT_FILENO, nothing);
    if (nothing >= 0) close(nothing);
  }
  replace(STDERR_FILENO, errors);
  close(errors);
  close(c->signals);
  for (uint32_t r = 0; r <= rank; r++)
    if (c->errors[r] >= 0) close(c->errors[r]);
  return sluice_program_begin();
}

static sluice_status *start_child(children *c, uint32_t rank, bool *out_is_child) {
  int ends[2];
  const pid_t parent = getpid();
  if (pipe2(ends, O_CLOEXEC) != 0) return sluice_error(SLUICE_IO, "a pipe for rank %u: %s", rank, strerror(errno));
  c->errors[rank] = ends[0];
  const pid_t process = fork();
  if (process < 0) {
    close(ends[1]);
    return sluice_error(SLUICE_IO, "a process for rank %u: %s", rank, strerror(errno));
  }
  *out_is_child = process == 0;
  if (process == 0) return become_child(c, rank, ends[1], parent);
  close(ends[1]);
  c->process[rank] = process;
  c->running++;
  return NULL;
}

/* ---- Ending ---- */

static void signal_all(const children *c, int number) {
  for (uint32_t r = 0; r < c->ranks; r++)
    if (c->process[r]) kill(c->process[r], number);
}

/* Ends all children, and then this process by the signal `number`. */
static void end_by(children *c, int number, int send) {
  c->ended_by = number;
  c->sent = send;
  c->failed = tool_now();
  signal_all(c, send);
}

static void note_end(children *c, uint32_t rank, int status) {
  c->process[rank] = 0;
  c->running--;
  const bool killed = WIFSIGNALED(status);
  if (!killed && WEXITSTATUS(status) == 0) return;
  if (killed && rank == 0 && WTERMSIG(status) == c->typed) end_by(c, c->typed, SIGTERM);
  /* Those that this process ends are not failures of their own. */
  if (killed && !(c->sent && (WTERMSIG(status) == c->sent || WTERMSIG(status) == SIGTERM)))
    child_reports_killed(&c->reports, rank, WTERMSIG(status));
  if (c->failed > 0) return;
  c->failed = tool_now();
  c->code = killed ? 1 : WEXITSTATUS(status);
}

static void reap(children *c) {
  for (uint32_t r = 0; r < c->ranks; r++) {
    int status = 0;
    if (c->process[r] && waitpid(c->process[r], &status, WNOHANG) == c->process[r]) note_end(c, r, status);
  }
}

static void take_signals(children *c) {
  struct signalfd_siginfo info;
  while (read(c->signals, &info, sizeof info) == sizeof info) {
    const int number = (int)info.ssi_signo;
    if (number == SIGCHLD) continue;
    if (info.ssi_code == SI_KERNEL)
      c->typed = number; /* rank 0 decides */
    else
      end_by(c, number, number);
  }
}

/* Ends those that others wait for in vain: politely, then not. */
static void hurry(children *c) {
  if (c->failed <= 0) return;
  const double waited = tool_now() - c->failed;
  const int number = waited > 2 * GRACE ? SIGKILL : waited > GRACE ? SIGTERM : 0;
  if (!number || number == c->sent) return;
  c->sent = number;
  signal_all(c, number);
}

static void read_errors(children *c, uint32_t rank) {
  char text[4096];
  const ssize_t count = read(c->errors[rank], text, sizeof text);
  if (count > 0) {
    child_reports_add(&c->reports, rank, text, (size_t)count);
  } else if (count == 0 || errno != EINTR) {
    close(c->errors[rank]);
    c->errors[rank] = -1;
  }
}

static bool anything_open(const children *c) {
  for (uint32_t r = 0; r < c->ranks; r++)
    if (c->errors[r] >= 0) return true;
  return false;
}

/* Until all have ended and all that they said was read. Their own children may keep a pipe open: that is not waited
 * for. */
static void wait_for_all(children *c) {
  struct pollfd list[1 + SLUICE_MOST_RANKS];
  for (double ended = 0; c->running || (anything_open(c) && tool_now() - ended < 1);) {
    list[0] = (struct pollfd){.fd = c->signals, .events = POLLIN};
    for (uint32_t r = 0; r < c->ranks; r++) list[1 + r] = (struct pollfd){.fd = c->errors[r], .events = POLLIN};
    poll(list, 1 + c->ranks, 100);
    for (uint32_t r = 0; r < c->ranks; r++)
      if (list[1 + r].revents) read_errors(c, r);
    take_signals(c);
    reap(c);
    hurry(c);
    if (c->running) ended = tool_now();
  }
}

/* ---- All of it ---- */

static sluice_status *begin(children *c, int *out_memory) {
  for (uint32_t r = 0; r < SLUICE_MOST_RANKS; r++) c->errors[r] = -1;
  sigemptyset(&c->blocked);
  sigaddset(&c->blocked, SIGCHLD);
  for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) {
    struct sigaction old;
    if (sigaction(fatal[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaddset(&c->blocked, fatal[i]);
  }
  sigprocmask(SIG_BLOCK, &c->blocked, &c->before);
  c->signals = signalfd(-1, &c->blocked, SFD_CLOEXEC | SFD_NONBLOCK);
  if (c->signals < 0) return sluice_error(SLUICE_IO, "signals as a file: %s", strerror(errno));
  return sluice_shared_create(c->ranks, MESSAGE_BYTES, out_memory);
}

static void end(children *c, int memory) {
  for (uint32_t r = 0; r < c->ranks; r++)
    if (c->errors[r] >= 0) close(c->errors[r]);
  if (c->signals >= 0) close(c->signals);
  if (memory >= 0) close(memory);
  sigprocmask(SIG_SETMASK, &c->before, NULL);
  if (c->ended_by) raise(c->ended_by); /* with the handler that removes temporary files */
}

sluice_status *tool_children_run(uint32_t ranks, tool_child *out_child, bool *out_is_child, int *out_code) {
  children c = {.ranks = ranks, .signals = -1};
  int memory = -1;
  *out_is_child = false;
  *out_code = 0;
  sluice_status *status = begin(&c, &memory);
  for (uint32_t r = 0; r < ranks && !status; r++) {
    status = start_child(&c, r, out_is_child);
    if (!*out_is_child) continue;
    *out_child = (tool_child){.rank = r, .ranks = ranks, .memory = memory};
    return status;
  }
  if (status) signal_all(&c, c.sent = SIGKILL);
  wait_for_all(&c);
  if (!c.ended_by) child_reports_print(&c.reports);
  *out_code = c.code;
  end(&c, memory);
  return status;
}
