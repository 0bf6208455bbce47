/* sluice-run on older systems. A program that is linked with glibc 2.34 asks for glibc 2.34, although all that it calls
 * has been there for twenty years: functions moved between libraries (threads and dlopen into libc), became functions
 * that were macros (stat), or got a faster error path (exp). Here the program gets the old ones, which every later
 * glibc still has; so it starts wherever glibc is 2.28 or later. What is called newly and is younger than that is found
 * by tests/cli/program.sh.
 *
 * Each of these definitions stands in for glibc's within the program and is seen by nothing outside of it. */
#include <features.h>

#if defined(__GLIBC__) && defined(__x86_64__) && defined(SLUICE_OLD_GLIBC)
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#define LOCAL __attribute__((visibility("hidden")))

/* glibc's function as of a version, under the name old_... */
#define OLD(type, name, version, ...)                                                                                  \
  extern type old_##name(__VA_ARGS__);                                                                                 \
  __asm__(".symver old_" #name ", " #name "@GLIBC_" version)

/* ---- The start ----
 *
 * Until 2.33 a program brought the function that runs its constructors; now libc does that where none is given, which
 * is what the linked start-up code says. */
typedef int main_function(int, char **, char **);
typedef void constructor(int, char **, char **);
extern constructor *first_constructor[] __asm__("__init_array_start") LOCAL; /* the linker sets both */
extern constructor *end_of_constructors[] __asm__("__init_array_end") LOCAL;
OLD(int, __libc_start_main, "2.2.5", main_function *, int, char **, constructor *, void (*)(void), void (*)(void),
    void *);
/* What the start-up code calls, since the program is linked with --wrap=__libc_start_main. */
int start_program(main_function *program, int argc, char **argv, constructor *init, void (*fini)(void),
                  void (*loader_fini)(void), void *stack_end) __asm__("__wrap___libc_start_main") LOCAL;

static void run_constructors(int argc, char **argv, char **environment) {
  for (constructor **at = first_constructor; at < end_of_constructors; at++) (*at)(argc, argv, environment);
}

int start_program(main_function *program, int argc, char **argv, constructor *init, void (*fini)(void),
                  void (*loader_fini)(void), void *stack_end) {
  return old___libc_start_main(program, argc, argv, init ? init : run_constructors, fini, loader_fini, stack_end);
}

/* ---- Files: the first argument is the version of struct stat ---- */

enum { STAT_VERSION = 1 };
OLD(int, __xstat, "2.2.5", int, const char *, struct stat *);
OLD(int, __lxstat, "2.2.5", int, const char *, struct stat *);
OLD(int, __fxstat, "2.2.5", int, int, struct stat *);
OLD(int, __fxstatat, "2.4", int, int, const char *, struct stat *, int);

LOCAL int stat(const char *path, struct stat *info) {
  return old___xstat(STAT_VERSION, path, info);
}
LOCAL int lstat(const char *path, struct stat *info) {
  return old___lxstat(STAT_VERSION, path, info);
}
LOCAL int fstat(int file, struct stat *info) {
  return old___fxstat(STAT_VERSION, file, info);
}
LOCAL int fstatat(int directory, const char *path, struct stat *info, int flags) {
  return old___fxstatat(STAT_VERSION, directory, path, info, flags);
}

/* ---- Libraries and threads ---- */

OLD(void *, dlopen, "2.2.5", const char *, int);
OLD(void *, dlsym, "2.2.5", void *, const char *);
OLD(int, dlclose, "2.2.5", void *);
OLD(char *, dlerror, "2.2.5", void);
OLD(int, pthread_create, "2.2.5", pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
OLD(int, pthread_join, "2.2.5", pthread_t, void **);
OLD(int, pthread_once, "2.2.5", pthread_once_t *, void (*)(void));
OLD(int, pthread_sigmask, "2.2.5", int, const sigset_t *, sigset_t *);
OLD(int, pthread_mutex_trylock, "2.2.5", pthread_mutex_t *);
OLD(int, pthread_mutexattr_init, "2.2.5", pthread_mutexattr_t *);
OLD(int, pthread_mutexattr_destroy, "2.2.5", pthread_mutexattr_t *);
OLD(int, pthread_mutexattr_setpshared, "2.2.5", pthread_mutexattr_t *, int);
OLD(int, pthread_mutexattr_setrobust, "2.12", pthread_mutexattr_t *, int);

LOCAL void *dlopen(const char *path, int flags) {
  return old_dlopen(path, flags);
}
LOCAL void *dlsym(void *library, const char *name) {
  return old_dlsym(library, name);
}
LOCAL int dlclose(void *library) {
  return old_dlclose(library);
}
LOCAL char *dlerror(void) {
  return old_dlerror();
}
LOCAL int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
  return old_pthread_create(thread, attributes, run, argument);
}
LOCAL int pthread_join(pthread_t thread, void **result) {
  return old_pthread_join(thread, result);
}
LOCAL int pthread_once(pthread_once_t *once, void (*run)(void)) {
  return old_pthread_once(once, run);
}
LOCAL int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
  return old_pthread_sigmask(how, set, old);
}
LOCAL int pthread_mutex_trylock(pthread_mutex_t *mutex) {
  return old_pthread_mutex_trylock(mutex);
}
LOCAL int pthread_mutexattr_init(pthread_mutexattr_t *attributes) {
  return old_pthread_mutexattr_init(attributes);
}
LOCAL int pthread_mutexattr_destroy(pthread_mutexattr_t *attributes) {
  return old_pthread_mutexattr_destroy(attributes);
}
LOCAL int pthread_mutexattr_setpshared(pthread_mutexattr_t *attributes, int shared) {
  return old_pthread_mutexattr_setpshared(attributes, shared);
}
LOCAL int pthread_mutexattr_setrobust(pthread_mutexattr_t *attributes, int robust) {
  return old_pthread_mutexattr_setrobust(attributes, robust);
}

/* ---- Arithmetic: the same values ---- */

OLD(double, exp, "2.2.5", double);
OLD(double, log, "2.2.5", double);
OLD(double, pow, "2.2.5", double, double);

LOCAL double exp(double x) {
  return old_exp(x);
}
LOCAL double log(double x) {
  return old_log(x);
}
LOCAL double pow(double x, double y) {
  return old_pow(x, y);
}
#endif
