#include "backends/common/short_memory.h"

#include "sluice/file.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PROBE_BYTES = 1 << 20 };

/* The two places where such a failure can be caught have no C interface: operator new calls its handler
 * (std::set_new_handler), LLVM's own uses of malloc call theirs (llvm::install_bad_alloc_error_handler). */
typedef void new_handler(void);
typedef void bad_alloc_handler(void *user, const char *reason, bool diagnose);
extern new_handler *set_new_handler(new_handler *handler) __asm__("_ZSt15set_new_handlerPFvvE");
extern void install_bad_alloc_handler(bad_alloc_handler *handler,
                                      void *user) __asm__("_ZN4llvm31install_bad_alloc_error_handlerEPFvPvPKcbES0_");

static void (*reaction)(void);

static void on_new(void) {
  reaction();
  _exit(1);
}

static void on_bad_alloc(void *user, const char *reason, bool diagnose) {
  (void)user;
  (void)reason;
  (void)diagnose;
  on_new();
}

/* In places LLVM and MLIR use what malloc returned without a look. A crash while no memory can be had is taken for
 * that; otherwise it happens again, by the default action. */
static void on_crash(int number) {
  (void)number;
  if (mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) on_new();
}

static void watch_crashes(void) {
  static char other_stack[64 << 10]; /* the crash may be a stack that could not grow */
  static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT};
  stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
  if (sigaltstack(&stack, NULL)) return;
  for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) {
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = (int)(SA_RESETHAND | SA_ONSTACK)}, old;
    /* a sanitizer's handler stays */
    if (sigaction(crashes[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) sigaction(crashes[i], &action, NULL);
  }
}

void short_memory_react(void (*react)(void)) {
  bool installed = reaction != NULL;
  reaction = react;
  if (installed) return; /* LLVM takes one handler */
  set_new_handler(on_new);
  install_bad_alloc_handler(on_bad_alloc, NULL);
  watch_crashes();
}

void short_memory_exit(void) {
  static const char line[] = "error: out of memory\n";
  sluice_temporary_remove_all();
  if (write(STDERR_FILENO, line, sizeof line - 1) < 0) _exit(1);
  _exit(1);
}
