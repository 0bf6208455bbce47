/* The alphabet in which byte-level tokenizer files write bytes: a byte that is a printable character of Latin-1 other
 * than the space stands for itself; the others, in ascending order, are U+0100, U+0101, ...
 */
#ifndef SLUICE_TEXT_BYTE_ALPHABET_H
#define SLUICE_TEXT_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>

/* Rewrites `length` bytes of valid UTF-8 as the bytes they stand for, into `out` (room for `length`). False when a
 * character is not of the alphabet. */
bool byte_alphabet_read(const char *text, size_t length, char *out, size_t *out_length);

#endif
