/* Characters that PCRE2's Unicode does not know yet. */
#ifndef SLUICE_TEXT_LATER_CHARACTERS_H
#define SLUICE_TEXT_LATER_CHARACTERS_H

#include "sluice/json.h"

/* Copies valid UTF-8 to `out`, replacing it, with each character that Unicode 16.0 has and 14.0 has not by one of 14.0
 * of the same category and as many bytes: expressions match the copy as they would match the text with the newer
 * Unicode. False when there is no such character; `out` is then untouched. */
bool later_characters_replace(const char *text, size_t length, sluice_text *out);

#endif
