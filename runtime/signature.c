/* Signatures of bundles: sluice/signature.h. */
#include "sluice/signature.h"

#include <stddef.h>
#include <string.h>

_Static_assert(sizeof(sluice_bundle_signature) == 96, "the signature section is part of the file format");
_Static_assert(sizeof(sluice_signed_message) == 32 + SLUICE_BUNDLE_PAGE, "what is signed has no gaps");

const sluice_bundle_signature *sluice_bundle_signature_of(const sluice_bundle *bundle) {
  int section = sluice_bundle_find(bundle, SLUICE_SECTION_SIGNATURE, NULL);
  return section < 0 ? NULL : sluice_bundle_data(bundle, (uint32_t)section);
}

void sluice_signed_message_of(const sluice_bundle *bundle, sluice_signed_message *out_message) {
  *out_message = (sluice_signed_message){.purpose = SLUICE_SIGNED_PURPOSE, .header = *sluice_bundle_contents(bundle)};
  sluice_bundle_header *header = &out_message->header;
  if (!sluice_bundle_signature_of(bundle)) return;
  sluice_bundle_section *last = &header->sections[--header->section_count]; /* the reader has checked that it is */
  header->file_length = last->offset;
  *last = (sluice_bundle_section){0};
  sluice_sha256(header, offsetof(sluice_bundle_header, digest), header->digest);
}

sluice_status *sluice_bundle_check_signature(const sluice_bundle *bundle, const char *name,
                                             const uint8_t key[SLUICE_KEY_BYTES]) {
  const sluice_bundle_signature *signature = sluice_bundle_signature_of(bundle);
  if (!signature)
    return sluice_error(SLUICE_CHECK_FAILED, "%s is not signed, and nothing of it was run; 'sluice sign' signs bundles",
                        name);
  sluice_signed_message message;
  sluice_signed_message_of(bundle, &message);
  if (sluice_ed25519_verify(key, &message, sizeof message, signature->signature)) return NULL;
  if (memcmp(key, signature->key, SLUICE_KEY_BYTES) != 0)
    return sluice_error(SLUICE_CHECK_FAILED,
                        "%s is signed with another key than the one that is trusted; nothing of it was run", name);
  return sluice_error(SLUICE_CHECK_FAILED,
                      "%s was changed after it was signed: its signature does not fit; nothing of it was run", name);
}
