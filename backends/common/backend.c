#include "backends/common/backend.h"
#include "backends/common/families.h"
#include "backends/common/limits.h"
#include "backends/common/short_memory.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/ErrorHandling.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_CHILDREN = 4 };

/* ---- one child: emits, optimises and compiles its share of the kernels ---- */

/* The job at hand. */
typedef struct job {
  const backend *backend;
  const char *target;
  const kernel_spec *specs;
  size_t count, children;
  code_form form;
} job;

/* What a child sends: this, then the bytes of its result, then what it knows of its kernels. `failed`: the bytes are a
 * message, this its sluice_code. */
typedef struct child_header {
  uint32_t failed;
  uint32_t kernels;
  uint64_t length;
} child_header;

static void send_all(int file, const void *data, size_t length) {
  const char *at = data;
  while (length) {
    ssize_t n = write(file, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(3);
    at += n;
    length -= (size_t)n;
  }
}

static void child_fails(int file, sluice_code code, const char *message) {
  child_header header = {.failed = code, .length = strlen(message)};
  send_all(file, &header, sizeof header);
  send_all(file, message, strlen(message));
  _exit(1);
}

static int short_child; /* where a child that is short of memory says so */

static void child_lacks_memory(void) {
  child_fails(short_child, SLUICE_OUT_OF_MEMORY, "out of memory");
}

static void emitter_open(emitter *e, const job *work, LLVMTargetMachineRef machine) {
  *e = (emitter){.context = LLVMContextCreate(),
                 .target = work->target,
                 .facts = work->backend->facts(work->target),
                 .atoms = work->backend->atoms(work->target),
                 .machine = machine};
  e->module = LLVMModuleCreateWithNameInContext("kernels", e->context);
  char *triple = LLVMGetTargetMachineTriple(machine);
  LLVMSetTarget(e->module, triple);
  LLVMDisposeMessage(triple);
  LLVMSetModuleDataLayout(e->module, LLVMCreateTargetDataLayout(machine));
  e->builder = LLVMCreateBuilderInContext(e->context);
  e->i1 = LLVMInt1TypeInContext(e->context);
  e->i8 = LLVMInt8TypeInContext(e->context);
  e->i16 = LLVMInt16TypeInContext(e->context);
  e->i32 = LLVMInt32TypeInContext(e->context);
  e->i64 = LLVMInt64TypeInContext(e->context);
  e->f32 = LLVMFloatTypeInContext(e->context);
  e->f64 = LLVMDoubleTypeInContext(e->context);
  e->pointer = LLVMPointerTypeInContext(e->context, 0);
  e->nothing = LLVMVoidTypeInContext(e->context);
}

static void emit_kernel(emitter *e, const kernel_spec *spec) {
  e->vector = e->facts->vector;
  e->spec = spec;
  e->declined[0] = 0;
  for (const own_kernel *own = e->atoms->own_kernels; own && own->family; own++)
    if (strcmp(own->family, spec->family) == 0 && (own->emit(e, spec) || e->status)) return;
  kernel_family *family = kernel_family_find(spec->family);
  if (family)
    family(e, spec);
  else if (e->declined[0])
    e->status = sluice_error(SLUICE_UNSUPPORTED, "kernel %s: target %s has no kernel %s of this shape: %s",
                             spec->symbol, e->target, spec->family, e->declined);
  else
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: target %s has no kernel family '%s'", spec->symbol, e->target,
                             spec->family);
}

/* The parts as functions, then the kernel that calls them. */
static void emit_joined(emitter *e, const kernel_spec *specs, const kernel_spec *spec) {
  if (!e->atoms->join || spec->part_count > SLUICE_JOIN_PARTS || spec->argument_count > SLUICE_JOIN_ARGUMENTS) {
    e->status =
        sluice_error(SLUICE_INTERNAL, "%s: the target cannot join %zu launches", spec->symbol, spec->part_count);
    return;
  }
  joined_kernel joined = {.count = (unsigned)spec->part_count};
  uint64_t bytes = 0;
  unsigned lanes = 0, workgroups = 0; /* of a processor */
  e->joined = &joined;
  for (joined.at = 0; joined.at < joined.count; joined.at++) {
    char symbol[128];
    snprintf(symbol, sizeof symbol, "%s_part_%u", spec->symbol, joined.at);
    kernel_spec part = specs[spec->parts[joined.at].kernel];
    part.symbol = symbol;
    joined_part *p = &joined.parts[joined.at];
    p->waits = spec->parts[joined.at].waits;
    p->late = spec->parts[joined.at].late;
    p->argument_count = part.argument_count;
    emit_kernel(e, &part);
    if (e->status) break;
    p->function = e->function;
    p->grid[0] = e->grid[0];
    p->grid[1] = e->grid[1];
    p->lanes = e->lanes;
    if (bytes < e->workgroup_bytes) bytes = e->workgroup_bytes;
    if (lanes < e->lanes) lanes = e->lanes;
    const unsigned asked = e->workgroups_per_processor;
    if (asked && (!workgroups || asked < workgroups)) workgroups = asked;
  }
  e->spec = spec;
  e->workgroup_bytes = bytes;
  e->lanes = lanes;
  e->workgroups_per_processor = workgroups;
  if (!e->status) e->atoms->join(e, spec);
  e->joined = NULL;
}

/* Runs in the child and never returns. Kernels share, share + children, ... are this child's. */
static void child_run(int file, const job *work, size_t share) {
  char *error = NULL;
  LLVMTargetMachineRef machine = work->backend->machine(work->target, &error);
  if (!machine) child_fails(file, SLUICE_INTERNAL, error ? error : "LLVM lacks the target");
  emitter e;
  emitter_open(&e, work, machine);
  kernel_info *infos = calloc(work->count, sizeof *infos);
  uint32_t kernels = 0;
  if (!infos) child_fails(file, SLUICE_OUT_OF_MEMORY, "out of memory");
  for (size_t i = share; i < work->count; i += work->children) {
    if (work->specs[i].part_count)
      emit_joined(&e, work->specs, &work->specs[i]);
    else
      emit_kernel(&e, &work->specs[i]);
    if (!e.status) check_limits(&e);
    if (e.status) child_fails(file, sluice_status_code(e.status), sluice_status_message(e.status));
    infos[kernels++] = (kernel_info){.workgroup_bytes = (uint32_t)e.workgroup_bytes,
                                     .lanes = e.lanes,
                                     .cache_first = e.cache_first,
                                     .grid = {e.grid[0], e.grid[1]}};
  }
  if (LLVMVerifyModule(e.module, LLVMReturnStatusAction, &error)) child_fails(file, SLUICE_INTERNAL, error);
  LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
  LLVMPassBuilderOptionsSetLoopUnrolling(options, 0);
  LLVMPassBuilderOptionsSetLoopVectorization(options, 0);
  LLVMPassBuilderOptionsSetSLPVectorization(options, 0);
  LLVMErrorRef failed = LLVMRunPasses(e.module, "default<O2>", machine, options);
  if (failed) child_fails(file, SLUICE_INTERNAL, LLVMGetErrorMessage(failed));
  const void *data;
  size_t length;
  if (work->form == CODE_LLVM_IR) {
    char *ir = LLVMPrintModuleToString(e.module);
    data = ir;
    length = strlen(ir);
  } else {
    LLVMMemoryBufferRef buffer;
    LLVMCodeGenFileType type = work->form == CODE_ASSEMBLY ? LLVMAssemblyFile : work->backend->file_type;
    if (LLVMTargetMachineEmitToMemoryBuffer(machine, e.module, type, &error, &buffer))
      child_fails(file, SLUICE_INTERNAL, error);
    data = LLVMGetBufferStart(buffer);
    length = LLVMGetBufferSize(buffer);
  }
  child_header header = {.kernels = kernels, .length = length};
  send_all(file, &header, sizeof header);
  send_all(file, data, length);
  send_all(file, infos, kernels * sizeof *infos);
  _exit(0);
}

/* ---- the parent ---- */

typedef struct generator {
  pid_t process;
  int file;   /* read end, -1 when finished */
  char *data; /* everything it sent */
  size_t length, capacity;
} generator;

static sluice_status *read_more(generator *c) {
  if (c->capacity - c->length < 65536) {
    size_t capacity = c->capacity ? c->capacity * 2 : 1 << 18;
    char *data = sluice_reallocate_array(c->data, capacity, 1);
    if (!data) return sluice_out_of_memory();
    c->data = data;
    c->capacity = capacity;
  }
  ssize_t n = read(c->file, c->data + c->length, c->capacity - c->length);
  if (n < 0 && errno == EINTR) return NULL;
  if (n <= 0) {
    close(c->file);
    c->file = -1;
  } else
    c->length += (size_t)n;
  return NULL;
}

/* Reads from all children until they are done. */
static sluice_status *collect(generator *children, size_t count) {
  for (;;) {
    struct pollfd polls[MOST_CHILDREN];
    size_t open = 0;
    for (size_t i = 0; i < count; i++)
      if (children[i].file >= 0) polls[open++] = (struct pollfd){.fd = children[i].file, .events = POLLIN};
    if (!open) return NULL;
    if (poll(polls, open, -1) < 0 && errno != EINTR)
      return sluice_error(SLUICE_IO, "waiting for code generation failed: %s", strerror(errno));
    for (size_t p = 0; p < open; p++) {
      if (!polls[p].revents) continue;
      for (size_t i = 0; i < count; i++)
        if (children[i].file == polls[p].fd) {
          SLUICE_TRY(read_more(&children[i]));
          break;
        }
    }
  }
}

static sluice_status *check_child(const generator *c, int wait_status, const char *first_kernel) {
  child_header header = {0};
  if (c->length >= sizeof header) memcpy(&header, c->data, sizeof header);
  bool complete = c->length >= sizeof header && !header.failed && WIFEXITED(wait_status) &&
                  WEXITSTATUS(wait_status) == 0 &&
                  c->length == sizeof header + header.length + header.kernels * sizeof(kernel_info);
  if (complete) return NULL;
  if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL)
    return sluice_error(SLUICE_OUT_OF_MEMORY, "code generation was killed, as happens when memory runs out");
  if (header.failed)
    return sluice_error((sluice_code)header.failed, "code generation failed: %.*s", (int)(c->length - sizeof header),
                        c->data + sizeof header);
  return sluice_error(SLUICE_INTERNAL, "code generation of %s and others died (%s %d)", first_kernel,
                      WIFSIGNALED(wait_status) ? "signal" : "exit code",
                      WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status));
}

/* Puts what the children made into one code object, in the order of the specs. */
static sluice_status *merge(const job *work, const generator *children, code_object *out) {
  out->kernels = sluice_allocate_array(work->count, sizeof *out->kernels);
  if (!out->kernels) return sluice_out_of_memory();
  out->kernel_count = work->count;
  void *files[MOST_CHILDREN];
  size_t lengths[MOST_CHILDREN], total = 0;
  for (size_t c = 0; c < work->children; c++) {
    child_header header;
    memcpy(&header, children[c].data, sizeof header);
    files[c] = children[c].data + sizeof header;
    lengths[c] = header.length;
    total += header.length;
    for (uint32_t k = 0; k < header.kernels; k++)
      memcpy(&out->kernels[c + k * work->children],
             children[c].data + sizeof header + header.length + k * sizeof(kernel_info), sizeof(kernel_info));
  }
  bool assembled = work->form == CODE_OBJECT && work->backend->file_type == LLVMAssemblyFile;
  if (work->form == CODE_LINKED || assembled)
    return work->backend->link(work->target, work->specs, work->count, files, lengths, work->children, out);
  char *data = sluice_allocate(total + 1);
  if (!data) return sluice_out_of_memory();
  for (size_t c = 0, at = 0; c < work->children; at += lengths[c++]) memcpy(data + at, files[c], lengths[c]);
  out->data = data;
  out->length = total;
  return NULL;
}

static sluice_status *start(generator *c, const job *work, size_t share) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) return sluice_error(SLUICE_IO, "no pipe: %s", strerror(errno));
  fflush(NULL);
  c->process = fork();
  if (c->process < 0) {
    int error = errno;
    close(ends[0]);
    close(ends[1]);
    return sluice_error(error == ENOMEM ? SLUICE_OUT_OF_MEMORY : SLUICE_IO, "no process for code generation: %s",
                        strerror(error));
  }
  if (c->process == 0) {
    close(ends[0]);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody waits for it when the parent is ended */
    sluice_set_allocation_hook(NULL, NULL);
    short_child = ends[1];
    short_memory_react(child_lacks_memory);
    child_run(ends[1], work, share);
  }
  close(ends[1]);
  c->file = ends[0];
  return NULL;
}

/* Compiles the kernels to `form`. */
static sluice_status *compile_to(const job *given, code_form form, code_object *out_code) {
  job work = *given;
  work.form = form;
  /* The number of children is fixed, since it shapes the code object; what is not linked comes from one, as one module.
   */
  work.children = form != CODE_LINKED || work.count < MOST_CHILDREN ? 1 : work.backend->children;
  generator child[MOST_CHILDREN];
  for (size_t i = 0; i < work.children; i++) child[i] = (generator){.file = -1};
  sluice_status *status = NULL;
  size_t started = 0;
  while (started < work.children && !status) {
    status = start(&child[started], &work, started);
    if (!status) started++;
  }
  if (!status) status = collect(child, started);
  for (size_t i = 0; i < started; i++) {
    if (child[i].file >= 0) close(child[i].file); /* given up: the child ends on its closed pipe */
    int wait_status = 0;
    while (waitpid(child[i].process, &wait_status, 0) < 0 && errno == EINTR) continue;
    if (!status) status = check_child(&child[i], wait_status, work.specs[i].symbol);
  }
  if (!status) status = merge(&work, child, out_code);
  for (size_t i = 0; i < work.children; i++) sluice_release(child[i].data);
  if (status) code_object_free(out_code);
  return status;
}

/* Compiles to `form` and writes the result to DIRECTORY/NAME; nothing when there is no such result. */
static sluice_status *save_form(const job *work, code_form form, const char *directory, const char *name) {
  code_object code = {0};
  char *path = sluice_format_string("%s/%s", directory, name);
  sluice_status *status = path ? compile_to(work, form, &code) : sluice_out_of_memory();
  if (!status && code.data) {
    sluice_pending_file pending;
    status = sluice_pending_open(&pending, path);
    if (!status) status = sluice_pending_close(&pending, sluice_pending_write(&pending, code.data, code.length));
  }
  code_object_free(&code);
  sluice_release(path);
  return status;
}

sluice_status *backend_compile(const char *target, const kernel_spec *specs, size_t count,
                               const backend_options *options, code_object *out_code) {
  *out_code = (code_object){0};
  job work = {.backend = backend_find(target), .target = target, .specs = specs, .count = count};
  if (!work.backend) return sluice_error(SLUICE_UNSUPPORTED, "no backend for target '%s'", target);
  if (count == 0) return sluice_error(SLUICE_INTERNAL, "no kernels to compile");
  if (options->save_directory) {
    SLUICE_TRY(save_form(&work, CODE_LLVM_IR, options->save_directory, "kernels.ll"));
    SLUICE_TRY(save_form(&work, CODE_ASSEMBLY, options->save_directory, "kernels.s"));
    SLUICE_TRY(save_form(&work, CODE_LINKED, options->save_directory, work.backend->linked_name));
  }
  SLUICE_TRY(compile_to(&work, options->form, out_code));
  if (options->form == CODE_OBJECT && !out_code->data) {
    code_object_free(out_code);
    return sluice_error(SLUICE_NOT_FOUND, "no object for %s: %s", target, work.backend->unlinked);
  }
  return NULL;
}
