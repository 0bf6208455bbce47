/* What the programs do first and last: sluice/program.h. */
#include "sluice/program.h"

#include "sluice/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static pid_t owner;

/* Children (code generation, ld.lld before it starts) have the handler too; the files are not theirs. */
static void remove_and_die(int number) {
  if (getpid() == owner) sluice_temporary_remove_all();
  raise(number); /* SA_RESETHAND: the default action now */
}

/* /dev/null the wrong way round: reading from standard input and writing to the others fails. */
static sluice_status *fill_closed_streams(void) {
  for (int number = 0; number < 3; number++) {
    if (fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
    int opened = open("/dev/null", number == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (opened != number)
      return sluice_error(SLUICE_IO, "descriptor %d is closed and /dev/null cannot take its place: %s", number,
                          strerror(errno));
  }
  return NULL;
}

sluice_status *sluice_program_begin(void) {
  static const int fatal[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU};
  SLUICE_TRY(fill_closed_streams());
  owner = getpid();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) {
    struct sigaction action = {.sa_handler = remove_and_die, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)}, old;
    if (sigaction(fatal[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaction(fatal[i], &action, NULL);
  }
  return NULL;
}

int sluice_program_end(sluice_status *status) {
  bool lost = ferror(stdout) != 0;
  const char *reason = "an earlier write failed";
  if (fclose(stdout)) {
    lost = true;
    reason = strerror(errno);
  }
  if (lost && !status) status = sluice_error(SLUICE_IO, "cannot write to standard output: %s", reason);
  int code = sluice_exit_code(status);
  if (status) sluice_status_print(status);
  sluice_status_free(status);
  return code;
}
