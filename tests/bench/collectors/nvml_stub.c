/* A stand-in for NVIDIA's libnvidia-ml.so.1 with two GPUs, for machines without any. NVML numbers them 0 and 1.
 *
 * GPU 0: utilization 30 %, 2 GiB in use; GPU 1: a sawtooth 70, 80, 90, 70 ... %, 5 GiB in use, and 2.5 J more at each
 * reading of its energy. STUB=mig cuts both GPUs, STUB=old knows no utilization and no energy, STUB=flaky refuses
 * every second reading of utilization after the first, STUB=lost refuses energy after the second reading.
 *
 * GPM: each look at a GPU is numbered from 0, and a figure between look a and look b is a + b / 100: which looks it is made of
 * can be read off it; 30 more for tensor cores, 60 for memory. GPU 0 has no GPM; STUB=locked keeps the figures from users, and
 * STUB=shaky refuses the fifth look.
 */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, UNKNOWN = 999 };

typedef struct { int index; } gpu_t;
static gpu_t gpus[2] = {{0}, {1}};
static const char *uuids[2] = {"GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-1111-1111-1111-111111111111"};
static const char *names[2] = {"Stub A", "Stub B"};

static int stub(const char *kind) { const char *set = getenv("STUB"); return set && !strcmp(set, kind); }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : code == NO_PERMISSION ? "Insufficient Permissions" : code == NOT_FOUND ? "Not Found" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t **gpu) { *gpu = &gpus[index]; return OK; }
int nvmlDeviceGetUUID(gpu_t *gpu, char *text, unsigned size) { strncpy(text, uuids[gpu->index], size); return OK; }
int nvmlDeviceGetName(gpu_t *gpu, char *text, unsigned size) { strncpy(text, names[gpu->index], size); return OK; }

int nvmlDeviceGetHandleByUUID(const char *uuid, gpu_t **gpu) {
  for (int i = 0; i < 2; i++)
    if (!strcmp(uuid, uuids[i])) { *gpu = &gpus[i]; return OK; }
  return NOT_FOUND;
}

int nvmlDeviceGetMigMode(gpu_t *gpu, unsigned *current, unsigned *pending) {
  (void)gpu;
  if (!stub("mig")) return NOT_SUPPORTED;
  *current = *pending = 1;
  return OK;
}

int nvmlDeviceGetUtilizationRates(gpu_t *gpu, unsigned *rates) {
  static unsigned calls;
  if (stub("old")) return NOT_SUPPORTED;
  if (stub("flaky") && calls++ % 2) return UNKNOWN;
  static unsigned tooth; /* the first reading, which only asks whether there is one, is the 90 */
  rates[0] = gpu->index ? 70 + 10 * ((tooth++ + 2) % 3) : 30;
  rates[1] = 0;
  return OK;
}

int nvmlDeviceGetMemoryInfo(gpu_t *gpu, unsigned long long *memory) {
  memory[0] = 8ULL << 30;
  memory[2] = (gpu->index ? 5ULL : 2ULL) << 30;
  memory[1] = memory[0] - memory[2];
  return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(gpu_t *gpu, unsigned long long *millijoules) {
  static unsigned long long readings[2];
  if (stub("old")) return NOT_SUPPORTED;
  if (stub("lost") && readings[gpu->index] == 2) return UNKNOWN;
  *millijoules = 1000000 + 2500 * readings[gpu->index]++;
  return OK;
}

typedef struct { int number; } look_t;
typedef struct { unsigned id; int result; double value; char *names[3]; } gpm_metric_t;
typedef struct { unsigned version, count; look_t *from, *to; gpm_metric_t metrics[1]; } gpm_asked_t;

int nvmlGpmQueryDeviceSupport(gpu_t *gpu, unsigned *support) { support[1] = gpu->index == 1; return OK; }
int nvmlGpmSampleAlloc(look_t **look) { *look = calloc(1, sizeof(look_t)); return OK; }
int nvmlGpmSampleFree(look_t *look) { free(look); return OK; }

int nvmlGpmSampleGet(gpu_t *gpu, look_t *look) {
  static int looks[2];
  look->number = looks[gpu->index]++;
  return stub("shaky") && look->number == 4 ? UNKNOWN : OK;
}

int nvmlGpmMetricsGet(gpm_asked_t *asked) {
  gpm_metric_t *metric = &asked->metrics[0];
  if (asked->version != 1 || asked->count != 1) return UNKNOWN;
  metric->result = stub("locked") ? NO_PERMISSION : OK;
  metric->value = asked->from->number + asked->to->number / 100.0;
  metric->value += metric->id == 5 ? 30 : metric->id == 10 ? 60 : metric->id == 2 ? 0 : 1000;
  return OK;
}
