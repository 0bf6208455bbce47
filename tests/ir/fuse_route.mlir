// Steps of up to 64 tokens choose and sort in one launch where the choice stood; the sort of a range that goes on keeps its rest. The range of
// the choice is what is left. On the host there is nothing to save.
// RUN: sluice opt %s --passes=fuse-route --target h100 | FileCheck %s
// RUN: sluice opt %s --passes=fuse-route --target host | FileCheck %s --check-prefix=HOST

// HOST-NOT: kernel.route

// CHECK-LABEL: @f
// CHECK: %[[L:.*]] = "kernel.arena"(){{.*}}"router_logits"
// CHECK: %[[B:.*]] = "kernel.weight"
// CHECK: %[[E:.*]] = "kernel.arena"(){{.*}}"router"
// CHECK: %[[W:.*]] = "kernel.arena"(){{.*}}"router.1"
// CHECK: %[[C:.*]] = "kernel.arena"(){{.*}}"counts"
// CHECK-NEXT: %[[O:.*]] = "kernel.arena"(){{.*}}"order"
// CHECK-NEXT: %[[T:.*]] = "kernel.arena"(){{.*}}"expert_tiles"
// CHECK-NEXT: "kernel.route"(%[[L]], %[[B]], %[[C]], %[[O]], %[[T]], %[[E]], %[[W]]) {cost = [40, 88, 0, 0, 0, 32, 0, 0, 0, 0], {{.*}}label = "route", launch.range = ["tokens", 0, 16], layer = 3 : i64, shared = 0 : i64, {{.*}}tile_m = 8 : i64, tokens = 16 : i64}
// CHECK: %[[C2:.*]] = "kernel.arena"(){{.*}}"counts"
// CHECK: "kernel.route"(%[[L]], %[[B]], %[[C2]], {{.*}}launch.range = ["tokens", 17, 64]{{.*}}tile_m = 16 : i64, tokens = 64 : i64}
// CHECK-NEXT: "kernel.topk_experts"(%[[L]], %[[B]], %[[E]], %[[W]]) {{.*}}launch.range = ["tokens", 65, 4294967295]
// CHECK-NEXT: "kernel.observe"(%[[E]])
// CHECK-NOT: "kernel.sort_experts"{{.*}}launch.range = ["tokens", 0, 16]
// CHECK: "kernel.sort_experts"(%[[E]], %[[C2]], {{.*}}launch.range = ["tokens", 65, 256]
// CHECK: "kernel.sort_experts"{{.*}}launch.range = ["tokens", 257, 4294967295]
func.func @f() {
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  "kernel.topk_experts"(%l, %b, %e, %w) {cost = [0, 40, 0, 0, 0, 32, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "router", layer = 3 : i64, target = "cuda:sm_90a"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.observe"(%e) {dimension = 2 : i64, dtype = "i32", name = "layer.3.router.experts"} : (!kernel.buffer) -> ()
  %i = "kernel.input"() {name = "logit_rows"} : () -> !kernel.buffer
  %x = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "x", offset = 320 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %c0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  "kernel.sort_experts"(%e, %c0, %o0, %t0) {cost = [40, 48, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "experts", launch.range = ["tokens", 0, 16], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 8 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.select_rows"(%l, %i, %x) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype = "f32", label = "select_rows", launch.range = ["tokens", 0, 16], layer = 3 : i64, target = "cuda:sm_90a", width = 8 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  %c1 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o1 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t1 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  "kernel.sort_experts"(%e, %c1, %o1, %t1) {cost = [40, 48, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "experts", launch.range = ["tokens", 17, 256], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.select_rows"(%l, %i, %x) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype = "f32", label = "select_rows", launch.range = ["tokens", 17, 256], layer = 3 : i64, target = "cuda:sm_90a", width = 8 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  %c2 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o2 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t2 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  "kernel.sort_experts"(%e, %c2, %o2, %t2) {cost = [40, 48, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "experts", launch.range = ["tokens", 257, 4294967295], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 64 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}

// The order lies where the logits do.
// CHECK-LABEL: @overlap
// CHECK-NOT: kernel.route
func.func @overlap() {
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  "kernel.topk_experts"(%l, %b, %e, %w) {cost = [0, 40, 0, 0, 0, 32, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "router", layer = 3 : i64, target = "cuda:sm_90a"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.observe"(%e) {dimension = 2 : i64, dtype = "i32", name = "layer.3.router.experts"} : (!kernel.buffer) -> ()
  %c0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 0 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  "kernel.sort_experts"(%e, %c0, %o0, %t0) {cost = [40, 48, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "experts", launch.range = ["tokens", 0, 4294967295], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}

// A launch of the same steps stands between.
// CHECK-LABEL: @between
// CHECK-NOT: kernel.route
func.func @between() {
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  "kernel.topk_experts"(%l, %b, %e, %w) {cost = [0, 40, 0, 0, 0, 32, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "router", layer = 3 : i64, target = "cuda:sm_90a"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.observe"(%e) {dimension = 2 : i64, dtype = "i32", name = "layer.3.router.experts"} : (!kernel.buffer) -> ()
  %i = "kernel.input"() {name = "logit_rows"} : () -> !kernel.buffer
  %x = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "x", offset = 320 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %c0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  "kernel.select_rows"(%l, %i, %x) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype = "f32", label = "select_rows", launch.range = ["tokens", 0, 16], layer = 3 : i64, target = "cuda:sm_90a", width = 8 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.sort_experts"(%e, %c0, %o0, %t0) {cost = [40, 48, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "experts", launch.range = ["tokens", 0, 4294967295], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}

// Not sorted in steps of more than 16 tokens.
// CHECK-LABEL: @part
// CHECK-NOT: kernel.route
func.func @part() {
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  "kernel.topk_experts"(%l, %b, %e, %w) {cost = [0, 40, 0, 0, 0, 32, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "router", layer = 3 : i64, target = "cuda:sm_90a"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.observe"(%e) {dimension = 2 : i64, dtype = "i32", name = "layer.3.router.experts"} : (!kernel.buffer) -> ()
  %c0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  "kernel.sort_experts"(%e, %c0, %o0, %t0) {cost = [40, 48, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "experts", launch.range = ["tokens", 0, 16], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}

// A token of more experts than the kernel has room for.
// CHECK-LABEL: @many_experts
// CHECK-NOT: kernel.route
func.func @many_experts() {
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  "kernel.topk_experts"(%l, %b, %e, %w) {cost = [0, 40, 0, 0, 0, 32, 0, 0, 0, 0], experts = 64 : i64, k = 33 : i64, label = "router", layer = 3 : i64, target = "cuda:sm_90a"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.observe"(%e) {dimension = 2 : i64, dtype = "i32", name = "layer.3.router.experts"} : (!kernel.buffer) -> ()
  %c0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t0 = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  "kernel.sort_experts"(%e, %c0, %o0, %t0) {cost = [40, 48, 0, 0, 0, 0, 0, 0, 0, 0], experts = 64 : i64, k = 33 : i64, label = "experts", launch.range = ["tokens", 0, 4294967295], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}
