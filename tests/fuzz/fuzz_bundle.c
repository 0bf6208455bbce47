/* libFuzzer target for the bundle reader and the plan check. The first byte chooses: 0 a bundle as it is; 1 a bundle
 * whose digests are made right first, so that what lies behind them is reached; 2 a plan alone. */
#include "sluice/bundle.h"
#include "sluice/memory.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static bool inside(const sluice_bundle_section *section, size_t length) {
  return section->offset >= SLUICE_BUNDLE_PAGE && section->offset <= length &&
         section->length <= length - section->offset;
}

static void seal(uint8_t *bytes, size_t length) {
  sluice_bundle_header *header = (sluice_bundle_header *)(void *)bytes;
  const sluice_bundle_section *plan = NULL;
  header->file_length = length;
  for (uint32_t i = 0; i < header->section_count && i < SLUICE_BUNDLE_MAX_SECTIONS; i++) {
    sluice_bundle_section *section = &header->sections[i];
    if (!inside(section, length)) continue;
    bool is_code = section->kind == SLUICE_SECTION_CODE && section->length >= sizeof section->digest;
    if (is_code && plan) /* it was compiled with the plan before it */
      memcpy(bytes + section->offset + section->length - sizeof plan->digest, plan->digest, sizeof plan->digest);
    sluice_sha256(bytes + section->offset, (size_t)section->length, section->digest);
    if (section->kind == SLUICE_SECTION_PLAN) plan = section;
  }
  sluice_sha256(bytes, SLUICE_BUNDLE_PAGE - sizeof header->digest, header->digest);
}

static void open_plan(const void *data, size_t length) {
  sluice_plan plan;
  sluice_status_free(sluice_plan_open(data, length, &plan));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  if (!length) return 0;
  size_t rest = length - 1;
  uint8_t *copy = sluice_allocate_aligned(64, rest ? rest : 1);
  if (!copy) return 0;
  memcpy(copy, data + 1, rest);
  if (data[0] == 2) {
    open_plan(copy, rest);
  } else {
    if (data[0] == 1 && rest >= SLUICE_BUNDLE_PAGE) seal(copy, rest);
    sluice_bundle *bundle = NULL;
    sluice_status *status = sluice_bundle_open_memory(copy, rest, "fuzz", &bundle);
    if (!status) {
      int plan = sluice_bundle_find(bundle, SLUICE_SECTION_PLAN, NULL);
      if (plan >= 0)
        open_plan(sluice_bundle_data(bundle, (uint32_t)plan),
                  (size_t)sluice_bundle_contents(bundle)->sections[plan].length);
    }
    sluice_status_free(status);
    sluice_bundle_close(bundle);
  }
  sluice_release(copy);
  return 0;
}
