#!/usr/bin/env bash
# Kernel IR for an NVIDIA target reads back, and what the verifier checks of launch ranges and groups is refused with one line.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target=h100 --emit=kernel-ir --disable-pass=join-launches \
  -o "$work/good.mlir" 2> /dev/null
"$SLUICE" opt "$work/good.mlir" > "$work/again.mlir"
grep 'launch.range = \[' "$work/again.mlir" > /dev/null
grep 'group = 8 : i64' "$work/again.mlir" > /dev/null

# refused PATTERN SED: the text after SED, which must change it, is refused with a line that matches PATTERN.
refused() {
  sed -E "$2" "$work/good.mlir" > "$work/bad.mlir"
  if cmp -s "$work/good.mlir" "$work/bad.mlir"; then echo "$2 changes nothing"; exit 1; fi
  if "$SLUICE" opt "$work/bad.mlir" > "$work/out" 2> "$work/err"; then echo "$2 is accepted"; exit 1; fi
  grep -E "$1" "$work/err" > /dev/null || { cat "$work/err"; exit 1; }
}

range='launch\.range = \[[^]]*\]'
triple="expected a size, from, to, for each size"
refused "$triple" "s/$range/launch.range = [\"tokens\", 2]/"
refused "$triple" "s/$range/launch.range = [\"tokens\", 2, 3, 4]/"
refused "$triple" "s/$range/launch.range = []/"
refused "$triple" "s/$range/launch.range = 7 : i64/"
refused "$triple" "s/$range/launch.range = [1, 0, 9]/"
refused "$triple" "s/$range/launch.range = [\"tokens\", \"8\", 9]/"
refused "one of its sizes has no such name" "s/$range/launch.range = [\"apples\", 0, 8]/"
refused "expected from <= to < 2\^32" "s/$range/launch.range = [\"tokens\", 9, 8]/"
refused "expected from <= to < 2\^32" "s/$range/launch.range = [\"tokens\", -1, 8]/"
refused "expected from <= to < 2\^32" "s/$range/launch.range = [\"tokens\", 0, 4294967296]/"
refused "expected each size once, in the order" "s/$range/launch.range = [\"pages\", 0, 8, \"tokens\", 0, 8]/"
refused "expected each size once, in the order" "s/$range/launch.range = [\"pages\", 0, 8, \"pages\", 0, 9]/"
refused "'query_tile' is 16, but the step's query tiles have 8 tokens" 's/model.query_tile = 16/model.query_tile = 8/'
# Steps by two sizes.
sed -E "s/launch\.range = \[\"page_stride\"/launch.range = [\"tokens\", 1, 64, \"page_stride\"/" "$work/good.mlir" > "$work/two.mlir"
if cmp -s "$work/two.mlir" "$work/good.mlir"; then exit 1; fi
"$SLUICE" opt "$work/two.mlir" | grep 'launch.range = \["tokens", 1, 64, "page_stride", ' > /dev/null
refused "has groups of 8 columns, expected 2, the attribute 'group'" '/kernel\.gemm/s/group = 8 : i64/group = 2 : i64/'
refused "has groups of 2 columns, expected 8, the attribute 'group'" '/kernel\.weight/s/group = 8 : i64/group = 2 : i64/'

# Tiles of products.
refused "schedule 'stream': 'slice' is 40, expected a multiple of 16" '/kernel\.gemm/s/slice = [0-9]+ : i64/slice = 40 : i64/'
refused "schedule 'stream': 'tile_m' is 12, expected a multiple of 8" '/kernel\.gemm/s/tile_m = 8 : i64/tile_m = 12 : i64/'
refused "schedule 'stream': 'group' is 2, expected just 8" \
  '/kernel\.(gemm|weight)/{s/group = 8 : i64/group = 2 : i64/;s/workgroups = [1-9][0-9]* : i64/workgroups = 4 : i64/}'

refused "schedule 'stream': 'stages' is 9, expected at most 6" '/kernel\.gemm/s/stages = [0-9]+ : i64/stages = 9 : i64/'
refused "schedule 'stream': 'lanes' is 48, expected a multiple of 32" '/kernel\.gemm/s/lanes = [0-9]+ : i64/lanes = 48 : i64/'
refused "there is no schedule 'cluster'" '/kernel\.gemm/s/schedule = "stream"/schedule = "cluster"/'
refused "'schedule' is .fast., expected one of tiles" '/kernel\.gemm/s/schedule = "stream"/schedule = "fast"/'

# The shared expert's weight, and the steps that a route has room for.
refused "shared_w is given, but 'shared' is 0" '/kernel\.expert_gemm/s/shared = 1 : i64/shared = 0 : i64/'
refused "'shared' is 2" '/kernel\.sort_experts/s/shared = 0 : i64/shared = 2 : i64/'
refused "w has 8 matrices, expected 7, the attribute 'experts'" '/kernel\.expert_gemm/s/experts = 8 : i64/experts = 7 : i64/'
refused "shared_w has [0-9]+ matrices, expected one" '/shared_experts/s/batch = 1 : i64/batch = 2 : i64/'
refused "takes 4 tokens, but its launch.range does not end there" '/kernel\.route/s/tokens = [0-9]+ : i64/tokens = 4 : i64/'
refused "takes 8 tokens, but its launch.range does not end there" '/kernel\.route/s/launch.range = \["tokens", 0, 8\]/launch.range = ["rows", 0, 8]/'

refused "shared_y is given, but 'shared_rows' is 0" '/kernel\.combine/s/shared_rows = 1 : i64/shared_rows = 0 : i64/'
refused "is a slot of y and has rows of its own" '/kernel\.combine.*shared_rows = 1/s/shared = 0 : i64/shared = 1 : i64/'

refused "'overlap' is .second., but no first product of the same sort is before it" '/kernel\.expert_gemm.*gather = "token"/s/overlap = "(none|first)"/overlap = "second"/'

# Joins: their launches, ranges, and what the parts wait for.
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target=h100 --emit=kernel-ir -o "$work/good.mlir" 2> /dev/null
"$SLUICE" opt "$work/good.mlir" | grep -c 'kernel.join' > /dev/null
refused "has no 'launch.range'" '/kernel\.join/s/launch.range = [^]]*\], //'
refused "it has 1 parts, expected 2 to 8" '/kernel\.join/s/launches = [0-9]+/launches = 1/'
refused "only some of its steps run the kernel.gemm behind it" '/kernel\.join/s/\["tokens", 1, 8\]/["tokens", 1, 9]/'
refused "'waits' has 1 elements, expected 2" '/kernel\.join/s/waits = \[0, 1\]/waits = [0]/'
refused "element 1 of attribute 'waits' has the wrong kind" '/kernel\.join/s/waits = \[0, 1\]/waits = [0, "1"]/'
refused "part 1 waits for 2, expected bits of parts before it" '/kernel\.join/s/waits = \[0, 1\]/waits = [0, 2]/'
refused "'late' has 1 elements, expected 2" '/kernel\.join/s/late = \[0, 0\]/late = [0]/'
refused "part 1 waits late, but it is no second product" '/kernel\.join/s/late = \[0, 0\]/late = [0, 1]/'
refused "part 5 waits late for 16, expected some of the parts that it waits for, 10" \
  '/kernel\.join/s/late = \[0, 0, 0, 0, 0, 8, 0\]/late = [0, 0, 0, 0, 0, 16, 0]/'
refused "it has only one of two products that overlap" '/kernel\.expert_gemm/s/overlap = "second"/overlap = "none"/'
refused "its last part does not wait for all others" '/kernel\.join/s/waits = \[0, 1\]/waits = [0, 0]/'

"$SLUICE" opt "$SLUICE_SOURCE/tests/ir/join_launches.mlir" --passes=join-launches --target=h100 > "$work/good.mlir"
refused "'launches' is 9, but 6 of them are missing" '/launch.range = \["tokens", 17, 64\]/s/launches = 3 : i64/launches = 9 : i64/'
refused "its last part is the second of two products that overlap" \
  's/late = \[0, 0, 0, 4, 0\](.*)launches = 5 : i64, waits = \[0, 1, 2, 6, 8\]/late = [0, 0, 0, 4]\1launches = 4 : i64, waits = [0, 1, 2, 6]/'

# Partial results of attention have the room that the kernels' attributes say.
"$SLUICE" opt "$SLUICE_SOURCE/tests/ir/lower_cuda_matrix.mlir" \
  --passes=choose-tiles,plan-buffers,lower-to-kernels --target=h100 > "$work/good.mlir"
refused "partials has [0-9]+ bytes for each of size .one., expected .one. and room for 133 parts" \
  '/kernel\.attention_part/s/parts = 132 : i64/parts = 133 : i64/'
refused "and room for 264 parts" '/kernel\.attention_merge/s/parts = 132 : i64/parts = 264 : i64/'
refused "schedule 'parts': 'part_rows' is 1, expected just 16" '/kernel\.attention_part/s/part_rows = 16 : i64/part_rows = 1 : i64/'
refused "a kv head has 32 query heads, expected at most 16, the attribute 'part_rows'" \
  '/kernel\.attention_part/{s/ heads = [0-9]+ : i64/ heads = 32 : i64/;s/kv_heads = [0-9]+ : i64/kv_heads = 1 : i64/}'

# Of the model op: shapes and types of the shared expert's weights.
"$SLUICE" compile "$SLUICE_SOURCE/tests/golden/nano" --target=host --emit=model-ir -o "$work/model.mlir" 2> /dev/null
"$SLUICE" opt "$work/model.mlir" \
  --passes=canonicalise,cse,fuse-epilogues,fuse-router,fuse-experts,fold-shared-expert > "$work/good.mlir"
grep '"model.experts_shared"' "$work/good.mlir" > /dev/null
refused "shared_gate" '/"model.experts_shared"/s/(tensor<8x256x128xbf16>), tensor<128x256xbf16>/\1, tensor<64x256xbf16>/; /shared_experts.gate_proj/s/tensor<128x256xbf16>/tensor<64x256xbf16>/'
