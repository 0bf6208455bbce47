/* Unicode normalisation form C. */
#ifndef SLUICE_TEXT_NFC_H
#define SLUICE_TEXT_NFC_H

#include "sluice/json.h"

/* Bytes up to the first character that normalisation may change or join, less the character before it; `length` when
 * the text is its own NFC. */
size_t nfc_stable_prefix(const char *text, size_t length);

/* Appends the NFC of valid UTF-8. Linear in `length`. Memory that ran short is remembered in `out->failed`. */
void nfc_append(const char *text, size_t length, sluice_text *out);

#endif
