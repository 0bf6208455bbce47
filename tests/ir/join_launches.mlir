// Launches that run one after the other become parts of one in steps of up to 64 tokens, once for each set of launches that steps run. They
// stay, for all other steps. A part waits for those that make what it uses, or use what it writes; the last one waits for all.
// RUN: sluice opt %s --passes=join-launches --target h100 | FileCheck %s
// RUN: sluice opt %s --passes=join-launches --target host | FileCheck %s --check-prefix=HOST

// HOST-NOT: kernel.join

// CHECK-LABEL: @ranges
// CHECK: "kernel.join"() {late = [0, 0], launch.range = ["tokens", 1, 16], launches = 2 : i64, waits = [0, 1]}
// CHECK-NEXT: "kernel.join"() {late = [0, 0], launch.range = ["tokens", 17, 64], launches = 3 : i64, waits = [0, 1]}
// CHECK-NEXT: "kernel.router_logits"
// CHECK-NEXT: "kernel.observe"
// CHECK: "kernel.route"
// CHECK-NEXT: "kernel.route"
// CHECK-NOT: kernel.join
// CHECK-LABEL: @beside
func.func @ranges() {
  %x = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "x", offset = 320 : i64, size = "tokens", width = 16 : i64} : () -> !kernel.buffer
  %g = "kernel.weight"() {batch = 1 : i64, columns = 16 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "gate", panel = 0 : i64, rank = 2 : i64, rows = 8 : i64, source_rows = [8], sources = ["gate"]} : () -> !kernel.buffer
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %c = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  "kernel.router_logits"(%x, %g, %l) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype = "f32", experts = 8 : i64, label = "router", layer = 3 : i64, many = 0 : i64, target = "cuda:sm_90a", width = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.observe"(%l) {dimension = 8 : i64, dtype = "f32", name = "layer.3.logits"} : (!kernel.buffer) -> ()
  "kernel.route"(%l, %b, %c, %o, %t, %e, %w) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "route", launch.range = ["tokens", 0, 16], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 8 : i64, tokens = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.route"(%l, %b, %c, %o, %t, %e, %w) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "route", launch.range = ["tokens", 17, 100], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 16 : i64, tokens = 100 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}

// The first product waits for nothing of the launch: what the route before it writes lies elsewhere. The second waits for the first, and,
// as the last part, for the route. A launch of another layer, or with a range of another size, is no part.
// CHECK: "kernel.join"() {late = [0, 0, 0, 0], launch.range = ["tokens", 1, 64], launches = 4 : i64, waits = [0, 1, 0, 6]}
// CHECK-NEXT: "kernel.router_logits"
// CHECK-NEXT: "kernel.route"
// CHECK-NEXT: "kernel.gemm"
// CHECK-NEXT: "kernel.gemm"
// CHECK-NEXT: "kernel.gemm"{{.*}}layer = 4
// CHECK-NEXT: "kernel.gemm"{{.*}}launch.range = ["rows",
func.func @beside() {
  %x = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "x", offset = 320 : i64, size = "tokens", width = 16 : i64} : () -> !kernel.buffer
  %g = "kernel.weight"() {batch = 1 : i64, columns = 16 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "gate", panel = 0 : i64, rank = 2 : i64, rows = 8 : i64, source_rows = [8], sources = ["gate"]} : () -> !kernel.buffer
  %m = "kernel.weight"() {batch = 1 : i64, columns = 16 : i64, dtype = "f32", group = 2 : i64, layout = "panels", name = "m", panel = 64 : i64, rank = 2 : i64, rows = 16 : i64, source_rows = [16], sources = ["m"]} : () -> !kernel.buffer
  %n = "kernel.none"() : () -> !kernel.buffer
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %c = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %h = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "hidden", offset = 384 : i64, size = "tokens", width = 16 : i64} : () -> !kernel.buffer
  %y = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "y", offset = 448 : i64, size = "tokens", width = 16 : i64} : () -> !kernel.buffer
  "kernel.router_logits"(%x, %g, %l) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype = "f32", experts = 8 : i64, label = "router", layer = 3 : i64, many = 0 : i64, target = "cuda:sm_90a", width = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.route"(%l, %b, %c, %o, %t, %e, %w) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "route", launch.range = ["tokens", 0, 64], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 8 : i64, tokens = 64 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.gemm"(%x, %m, %n, %h) {alpha = 0.0 : f64, cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], epilogue = "none", group = 2 : i64, k = 16 : i64, label = "linear", layer = 3 : i64, limit = 0.0 : f64, n = 16 : i64, out_dtype = "f32", panel = 64 : i64, size = "tokens", slice = 64 : i64, target = "cuda:sm_90a", tile_m = 16 : i64, weight_dtype = "f32", schedule = "tiles", lanes = 256 : i64, stages = 1 : i64, workgroups = 0 : i64, x_dtype = "f32"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.gemm"(%h, %m, %n, %y) {alpha = 0.0 : f64, cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], epilogue = "none", group = 2 : i64, k = 16 : i64, label = "linear", layer = 3 : i64, limit = 0.0 : f64, n = 16 : i64, out_dtype = "f32", panel = 64 : i64, size = "tokens", slice = 64 : i64, target = "cuda:sm_90a", tile_m = 16 : i64, weight_dtype = "f32", schedule = "tiles", lanes = 256 : i64, stages = 1 : i64, workgroups = 0 : i64, x_dtype = "f32"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.gemm"(%y, %m, %n, %h) {alpha = 0.0 : f64, cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], epilogue = "none", group = 2 : i64, k = 16 : i64, label = "linear", layer = 4 : i64, limit = 0.0 : f64, n = 16 : i64, out_dtype = "f32", panel = 64 : i64, size = "tokens", slice = 64 : i64, target = "cuda:sm_90a", tile_m = 16 : i64, weight_dtype = "f32", schedule = "tiles", lanes = 256 : i64, stages = 1 : i64, workgroups = 0 : i64, x_dtype = "f32"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.gemm"(%h, %m, %n, %y) {alpha = 0.0 : f64, cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], epilogue = "none", group = 2 : i64, k = 16 : i64, label = "linear", launch.range = ["rows", 0, 8], layer = 4 : i64, limit = 0.0 : f64, n = 16 : i64, out_dtype = "f32", panel = 64 : i64, size = "rows", slice = 64 : i64, target = "cuda:sm_90a", tile_m = 16 : i64, weight_dtype = "f32", schedule = "tiles", lanes = 256 : i64, stages = 1 : i64, workgroups = 0 : i64, x_dtype = "f32"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}

// The second expert product waits late for the first, which makes its x: what the route writes names its weights. The combination, as the
// last part, waits for all others.
// CHECK-LABEL: @experts
// CHECK: "kernel.join"() {late = [0, 0, 0, 4, 0], launch.range = ["tokens", 1, 8], launches = 5 : i64, waits = [0, 1, 2, 6, 8]}
func.func @experts() {
  %x = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "x", offset = 320 : i64, size = "tokens", width = 16 : i64} : () -> !kernel.buffer
  %g = "kernel.weight"() {batch = 1 : i64, columns = 16 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "gate", panel = 0 : i64, rank = 2 : i64, rows = 8 : i64, source_rows = [8], sources = ["gate"]} : () -> !kernel.buffer
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %c = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %n = "kernel.none"() : () -> !kernel.buffer
  %u = "kernel.weight"() {batch = 8 : i64, columns = 16 : i64, dtype = "f32", group = 8 : i64, layout = "panels", name = "u", panel = 16 : i64, rank = 2 : i64, rows = 16 : i64, source_rows = [16], sources = ["u.{expert}"]} : () -> !kernel.buffer
  %h = "kernel.arena"() {bytes = 128 : i64, dtype = "f32", name = "hidden", offset = 384 : i64, size = "tokens", width = 32 : i64} : () -> !kernel.buffer
  %y = "kernel.arena"() {bytes = 128 : i64, dtype = "f32", name = "y", offset = 512 : i64, size = "tokens", width = 32 : i64} : () -> !kernel.buffer
  %z = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "z", offset = 640 : i64, size = "tokens", width = 16 : i64} : () -> !kernel.buffer
  "kernel.router_logits"(%x, %g, %l) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype = "f32", experts = 8 : i64, label = "router", launch.range = ["tokens", 0, 8], layer = 3 : i64, many = 0 : i64, target = "cuda:sm_90a", width = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.route"(%l, %b, %c, %o, %t, %e, %w) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "route", launch.range = ["tokens", 0, 8], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 8 : i64, tokens = 8 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.expert_gemm"(%x, %u, %n, %c, %o, %t, %h) {alpha = 0.0 : f64, batch_bytes = 4096 : i64, cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], epilogue = "none", experts = 8 : i64, gather = "token", group = 8 : i64, k = 16 : i64, label = "experts", launch.range = ["tokens", 0, 8], layer = 3 : i64, limit = 0.0 : f64, n = 16 : i64, out_dtype = "f32", overlap = "first", panel = 16 : i64, shared = 0 : i64, slice = 16 : i64, target = "cuda:sm_90a", tile_m = 8 : i64, top_k = 2 : i64, weight_dtype = "f32", schedule = "rows", lanes = 32 : i64, stages = 1 : i64, workgroups = 0 : i64, x_dtype = "f32"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.expert_gemm"(%h, %u, %n, %c, %o, %t, %y) {alpha = 0.0 : f64, batch_bytes = 4096 : i64, cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], epilogue = "none", experts = 8 : i64, gather = "slot", group = 8 : i64, k = 16 : i64, label = "experts", launch.range = ["tokens", 0, 8], layer = 3 : i64, limit = 0.0 : f64, n = 16 : i64, out_dtype = "f32", overlap = "second", panel = 16 : i64, shared = 0 : i64, slice = 16 : i64, target = "cuda:sm_90a", tile_m = 8 : i64, top_k = 2 : i64, weight_dtype = "f32", schedule = "rows", lanes = 32 : i64, stages = 1 : i64, workgroups = 0 : i64, x_dtype = "f32"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.combine"(%y, %w, %n, %n, %z) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype = "f32", k = 2 : i64, label = "experts", launch.range = ["tokens", 0, 8], layer = 3 : i64, scale = 1.0 : f64, shared = 0 : i64, shared_rows = 0 : i64, target = "cuda:sm_90a", width = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}

// With nothing behind them, products that overlap are launches by themselves; what is before them is joined no more than that.
// CHECK-LABEL: @no_combination
// CHECK-NOT: kernel.join
func.func @no_combination() {
  %x = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "x", offset = 320 : i64, size = "tokens", width = 16 : i64} : () -> !kernel.buffer
  %g = "kernel.weight"() {batch = 1 : i64, columns = 16 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "gate", panel = 0 : i64, rank = 2 : i64, rows = 8 : i64, source_rows = [8], sources = ["gate"]} : () -> !kernel.buffer
  %l = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router_logits", offset = 0 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %b = "kernel.weight"() {batch = 1 : i64, columns = 8 : i64, dtype = "f32", group = 1 : i64, layout = "rows", name = "bias", panel = 0 : i64, rank = 1 : i64, rows = 1 : i64, source_rows = [1], sources = ["bias"]} : () -> !kernel.buffer
  %c = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "counts", offset = 0 : i64, size = "one", width = 12 : i64} : () -> !kernel.buffer
  %o = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "order", offset = 192 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %t = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "expert_tiles", offset = 256 : i64, size = "tokens", width = 8 : i64} : () -> !kernel.buffer
  %e = "kernel.arena"() {bytes = 64 : i64, dtype = "i32", name = "router", offset = 64 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %w = "kernel.arena"() {bytes = 64 : i64, dtype = "f32", name = "router.1", offset = 128 : i64, size = "tokens", width = 2 : i64} : () -> !kernel.buffer
  %n = "kernel.none"() : () -> !kernel.buffer
  %u = "kernel.weight"() {batch = 8 : i64, columns = 16 : i64, dtype = "f32", group = 8 : i64, layout = "panels", name = "u", panel = 16 : i64, rank = 2 : i64, rows = 16 : i64, source_rows = [16], sources = ["u.{expert}"]} : () -> !kernel.buffer
  %h = "kernel.arena"() {bytes = 128 : i64, dtype = "f32", name = "hidden", offset = 384 : i64, size = "tokens", width = 32 : i64} : () -> !kernel.buffer
  %y = "kernel.arena"() {bytes = 128 : i64, dtype = "f32", name = "y", offset = 512 : i64, size = "tokens", width = 32 : i64} : () -> !kernel.buffer
  "kernel.router_logits"(%x, %g, %l) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype = "f32", experts = 8 : i64, label = "router", launch.range = ["tokens", 0, 8], layer = 3 : i64, many = 0 : i64, target = "cuda:sm_90a", width = 16 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.route"(%l, %b, %c, %o, %t, %e, %w) {cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], experts = 8 : i64, k = 2 : i64, label = "route", launch.range = ["tokens", 0, 8], layer = 3 : i64, shared = 0 : i64, target = "cuda:sm_90a", tile_m = 8 : i64, tokens = 8 : i64} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.expert_gemm"(%x, %u, %n, %c, %o, %t, %h) {alpha = 0.0 : f64, batch_bytes = 4096 : i64, cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], epilogue = "none", experts = 8 : i64, gather = "token", group = 8 : i64, k = 16 : i64, label = "experts", launch.range = ["tokens", 0, 8], layer = 3 : i64, limit = 0.0 : f64, n = 16 : i64, out_dtype = "f32", overlap = "first", panel = 16 : i64, shared = 0 : i64, slice = 16 : i64, target = "cuda:sm_90a", tile_m = 8 : i64, top_k = 2 : i64, weight_dtype = "f32", schedule = "rows", lanes = 32 : i64, stages = 1 : i64, workgroups = 0 : i64, x_dtype = "f32"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  "kernel.expert_gemm"(%h, %u, %n, %c, %o, %t, %y) {alpha = 0.0 : f64, batch_bytes = 4096 : i64, cost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], epilogue = "none", experts = 8 : i64, gather = "slot", group = 8 : i64, k = 16 : i64, label = "experts", launch.range = ["tokens", 0, 8], layer = 3 : i64, limit = 0.0 : f64, n = 16 : i64, out_dtype = "f32", overlap = "second", panel = 16 : i64, shared = 0 : i64, slice = 16 : i64, target = "cuda:sm_90a", tile_m = 8 : i64, top_k = 2 : i64, weight_dtype = "f32", schedule = "rows", lanes = 32 : i64, stages = 1 : i64, workgroups = 0 : i64, x_dtype = "f32"} : (!kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer, !kernel.buffer) -> ()
  return
}
