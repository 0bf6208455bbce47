/* Errors as values.
 *
 * Every fallible function of sluice returns `sluice_status *`: NULL is success, anything else is an error that the
 * caller owns and must either return further or give to `sluice_status_free`. Nothing in sluice calls exit, abort or
 * assert because of its input.
 *
 * An error carries a code, one line of text, and, where the cause is a place in an input file, that place
 * (`file:line:col`, one-based; with the source line for the caret). Creating an error never fails: when memory is
 * short, a static out-of-memory error comes back, which `sluice_status_free` accepts too.
 *
 * Thread safety: a status belongs to one thread at a time.
 */
#ifndef SLUICE_STATUS_H
#define SLUICE_STATUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Exit codes of both programs follow from these: see sluice_exit_code. Never renumbered. */
typedef enum sluice_code {
  SLUICE_OK = 0,
  SLUICE_INVALID = 1,       /* an input (file, argument, value) is malformed or inconsistent */
  SLUICE_UNSUPPORTED = 2,   /* the input is well-formed, but asks for something sluice does not do */
  SLUICE_NOT_FOUND = 3,     /* a file, tensor, device or symbol that is needed does not exist */
  SLUICE_IO = 4,            /* the operating system refused to read or write */
  SLUICE_OUT_OF_MEMORY = 5, /* host or device memory */
  SLUICE_DEVICE = 6,        /* a device or its driver failed */
  SLUICE_CHECK_FAILED = 7,  /* a verification ran and its bound does not hold */
  SLUICE_USAGE = 8,         /* the command line is wrong */
  SLUICE_INTERNAL = 70,     /* a bug of ours */
} sluice_code;

typedef struct sluice_status sluice_status;

#if defined(__GNUC__)
#define SLUICE_MUST_USE __attribute__((warn_unused_result))
#define SLUICE_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))
#define SLUICE_NEW_ERROR __attribute__((warn_unused_result, returns_nonnull)) /* never NULL */
#else
#define SLUICE_MUST_USE
#define SLUICE_PRINTF(format_index, first)
#define SLUICE_NEW_ERROR
#endif

/* A new error. `format` makes one line without a trailing newline that says what was found, what was expected and what
 * to do. What it quotes from an input file may be anything: here and in file names and source lines, tabs and ends of
 * lines become spaces, and other bytes that are not printable text (control characters, invalid UTF-8) become '?'. */
SLUICE_NEW_ERROR sluice_status *sluice_error(sluice_code code, const char *format, ...) SLUICE_PRINTF(2, 3);

/* A new error at a place of an input file. `line` and `column` are one-based, 0 when unknown; `source_line` is the text
 * of that line, `source_length` bytes, of which the part around the column is copied (NULL when there is none). */
SLUICE_NEW_ERROR sluice_status *sluice_error_at(sluice_code code, const char *file, unsigned line, unsigned column,
                                                const char *source_line, size_t source_length, const char *format, ...)
    SLUICE_PRINTF(7, 8);

/* The static out-of-memory error; needs no memory. */
SLUICE_NEW_ERROR sluice_status *sluice_out_of_memory(void);

/* Puts "`context`: " before the message of `status` and returns it; NULL stays NULL. */
SLUICE_MUST_USE sluice_status *sluice_annotate(sluice_status *status, const char *format, ...) SLUICE_PRINTF(2, 3);

sluice_code sluice_status_code(const sluice_status *status); /* SLUICE_OK for NULL */
/* The message without place, "ok" for NULL. Lives as long as `status`. */
const char *sluice_status_message(const sluice_status *status);

/* The whole report as printed for a user, malloc'ed by sluice_allocate, newline-terminated:
 *     FILE:LINE:COL: error: MESSAGE        or        error: MESSAGE
 *     <source line>
 *         ^
 * with as much of the place as is known.
 * NULL when memory is short. */
char *sluice_status_format(const sluice_status *status);

/* Prints that report to stderr; nothing for NULL. */
void sluice_status_print(const sluice_status *status);

/* Frees an error; NULL is allowed. */
void sluice_status_free(sluice_status *status);

/* What a program exits with: 0 for NULL, 2 for SLUICE_USAGE, 70 for SLUICE_INTERNAL, otherwise 1. */
int sluice_exit_code(const sluice_status *status);

/* Returns from the calling function with the error of `expression`, if it has one. */
#define SLUICE_TRY(expression)                                                                                         \
  do {                                                                                                                 \
    sluice_status *try_status_ = (expression);                                                                         \
    if (try_status_) return try_status_;                                                                               \
  } while (0)

#ifdef __cplusplus
}
#endif
#endif
