// PyTorch's libtorch_cpu.so asks libcudart.so.13 and libcupti.so.13 for GPUs, and for times on them when it is profiled. An archive for
// CPUs brings these in their place: they say that there is no GPU, and that nothing can be profiled on it.
//
//   cc -shared -fPIC -Os -DCUDART -Wl,--version-script=… -Wl,-soname,libcudart.so.13 -o libcudart.so.13 no_cuda.c
//   cc … -DCUPTI … -Wl,-soname,libcupti.so.13 …

#ifdef CUDART
enum { no_device = 100 };  // cudaErrorNoDevice
#define IS_NOT_THERE(name) int name(void) { return no_device; }
IS_NOT_THERE(cudaDeviceSynchronize)
IS_NOT_THERE(cudaGetDeviceProperties)

int cudaGetDeviceCount(int *count) {
  *count = 0;
  return no_device;
}

// 0 is what the real one says where no driver is installed.
static int no_version(int *version) {
  *version = 0;
  return 0;
}
int cudaDriverGetVersion(int *version) { return no_version(version); }
int cudaRuntimeGetVersion(int *version) { return no_version(version); }

const char *cudaGetErrorString(int error) { return error ? "this is a build for CPUs" : "no error"; }
#endif

#ifdef CUPTI
enum { not_initialized = 15 };  // CUPTI_ERROR_NOT_INITIALIZED
#define IS_NOT_THERE(name) int name(void) { return not_initialized; }
IS_NOT_THERE(cuptiActivityDisable)
IS_NOT_THERE(cuptiActivityEnable)
IS_NOT_THERE(cuptiActivityEnableCudaEventDeviceTimestamps)
IS_NOT_THERE(cuptiActivityEnableDriverApi)
IS_NOT_THERE(cuptiActivityEnableRuntimeApi)
IS_NOT_THERE(cuptiActivityFlushAll)
IS_NOT_THERE(cuptiActivityGetNextRecord)
IS_NOT_THERE(cuptiActivityGetNumDroppedRecords)
IS_NOT_THERE(cuptiActivityPopExternalCorrelationId)
IS_NOT_THERE(cuptiActivityPushExternalCorrelationId)
IS_NOT_THERE(cuptiActivityRegisterCallbacks)
IS_NOT_THERE(cuptiActivityRegisterTimestampCallback)
IS_NOT_THERE(cuptiActivitySetAttribute)
IS_NOT_THERE(cuptiEnableCallback)
IS_NOT_THERE(cuptiEnableDomain)
IS_NOT_THERE(cuptiFinalize)
IS_NOT_THERE(cuptiGetCallbackName)
IS_NOT_THERE(cuptiGetVersion)
IS_NOT_THERE(cuptiSubscribe)
IS_NOT_THERE(cuptiUnsubscribe)

int cuptiGetResultString(int result, const char **text) {
  (void)result;
  *text = "this is a build for CPUs";
  return 0;
}
#endif
