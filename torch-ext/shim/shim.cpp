// What tch lacks of libtorch's C++ API. Every function returns nullptr on success, else a
// message made by strdup, which the caller frees: no C++ exception crosses into Rust.
//
// Tensors arrive as tch's C_tensor*, which is a torch::Tensor*.
#include <ATen/DeviceAccelerator.h>
#include <ATen/autocast_mode.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/torch.h>
#include <torch/version.h>

#include <dlfcn.h>

#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>

namespace {

torch::Tensor& tensor(void* t) { return *static_cast<torch::Tensor*>(t); }

template <typename F>
char* guarded(F&& f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

// Calls back into Rust after a gradient was accumulated, and frees the callback with itself.
class Hook final : public torch::autograd::PostAccumulateGradHook {
 public:
  using Call = char* (*)(void*);
  using Drop = void (*)(void*);
  Hook(void* context, Call call, Drop drop) : context_(context), call_(call), drop_(drop) {}
  Hook(const Hook&) = delete;
  Hook& operator=(const Hook&) = delete;
  ~Hook() override { drop_(context_); }

  void operator()(const torch::autograd::Variable&) override {
    if (char* message = call_(context_)) {
      std::string text(message);
      std::free(message);
      throw std::runtime_error(text);
    }
  }

 private:
  void* context_;
  Call call_;
  Drop drop_;
};

// A sum over ranks that Rust computes in place; frees its callback with itself.
class Sum final {
 public:
  using Call = char* (*)(void*, torch::Tensor*);
  using Drop = void (*)(void*);
  Sum(void* context, Call call, Drop drop) : context_(context), call_(call), drop_(drop) {}
  Sum(const Sum&) = delete;
  Sum& operator=(const Sum&) = delete;
  ~Sum() { drop_(context_); }

  // `t` is contiguous and nobody else's. Rust gets a handle of its own, which it deletes.
  void operator()(const torch::Tensor& t) const {
    if (char* message = call_(context_, new torch::Tensor(t))) {
      std::string text(message);
      std::free(message);
      throw std::runtime_error(text);
    }
  }

 private:
  void* context_;
  Call call_;
  Drop drop_;
};

// What every rank puts out depends on what every rank put in: the gradient is the sum of all ranks' gradients.
// A rank whose loss does not depend on the sum takes part with zeros.
class SumBackward final : public torch::autograd::Node {
 public:
  SumBackward(torch::autograd::edge_list&& next, std::shared_ptr<Sum> sum, const torch::Tensor& like)
      : Node(std::move(next)), sum_(std::move(sum)), sizes_(like.sizes().vec()), options_(like.options()) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    auto gradient = grads[0].defined() ? grads[0].detach().clone(at::MemoryFormat::Contiguous) : at::zeros(sizes_, options_);
    (*sum_)(gradient);
    return {gradient};
  }

 private:
  std::shared_ptr<Sum> sum_;
  std::vector<int64_t> sizes_;
  at::TensorOptions options_;
};

// A node is held by shared pointers up to PyTorch 2.12, by intrusive ones since.
void set_history(torch::Tensor& result, torch::autograd::edge_list&& next, std::shared_ptr<Sum> sum) {
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 13
  std::shared_ptr<torch::autograd::Node> node(new SumBackward(std::move(next), std::move(sum), result), torch::autograd::deleteNode);
#else
  c10::intrusive_ptr<torch::autograd::Node> node = c10::make_intrusive<SumBackward>(std::move(next), std::move(sum), result);
#endif
  torch::autograd::set_history(result, std::move(node));
}

at::DeviceType device_type(int device) { return device < 0 ? at::kCPU : at::kCUDA; }

c10::Device cuda(int device) { return c10::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)); }

c10::Stream cuda_stream(int device, int64_t id) { return c10::Stream(c10::Stream::UNSAFE, cuda(device), id); }

}  // namespace

extern "C" {

char* jcs_copy_message(const char* text) { return strdup(text); }

// Takes ownership of `context`: `drop` is called on it exactly once, also when this fails.
char* jcs_set_grad_hook(void* t, void* context, Hook::Call call, Hook::Drop drop) {
  auto hook = std::make_unique<Hook>(context, call, drop);
  return guarded([&] {
    TORCH_CHECK(tensor(t).is_leaf() && tensor(t).requires_grad(), "only a leaf that requires a gradient can have a gradient hook");
    torch::autograd::impl::set_post_acc_grad_hooks(tensor(t), std::move(hook));
  });
}

char* jcs_clear_grad_hook(void* t) {
  return guarded([&] { torch::autograd::impl::set_post_acc_grad_hooks(tensor(t), nullptr); });
}

char* jcs_set_grad(void* t, void* view) {
  return guarded([&] {
    auto& leaf = tensor(t);
    auto& grad = tensor(view);
    TORCH_CHECK(leaf.is_leaf() && leaf.requires_grad(), "only a leaf that requires a gradient can be given one");
    TORCH_CHECK(leaf.sizes() == grad.sizes(), "gradient of shape ", grad.sizes(), " for a tensor of shape ", leaf.sizes());
    TORCH_CHECK(leaf.scalar_type() == grad.scalar_type() && leaf.device() == grad.device(),
                "gradient and tensor differ in type or device");
    leaf.mutable_grad() = grad;
  });
}

char* jcs_clear_grad(void* t) {
  return guarded([&] { tensor(t).mutable_grad().reset(); });
}

// Takes ownership of `context`: `drop` is called on it exactly once, also when this fails.
char* jcs_sum_over_ranks(void* t, void* context, Sum::Call call, Sum::Drop drop, torch::Tensor** out) {
  auto sum = std::make_shared<Sum>(context, call, drop);
  return guarded([&] {
    auto& input = tensor(t);
    auto result = input.detach().clone(at::MemoryFormat::Contiguous);
    (*sum)(result);
    if (at::GradMode::is_enabled() && input.requires_grad()) {
      set_history(result, torch::autograd::collect_next_edges(input), sum);
    }
    *out = new torch::Tensor(result);
  });
}

char* jcs_autocast(int device, int enabled, int bf16, int* was_enabled, int* was_bf16) {
  return guarded([&] {
    auto type = device_type(device);
    *was_enabled = at::autocast::is_autocast_enabled(type);
    *was_bf16 = at::autocast::get_autocast_dtype(type) == at::kBFloat16;
    at::autocast::set_autocast_dtype(type, bf16 ? at::kBFloat16 : at::kHalf);
    at::autocast::set_autocast_enabled(type, enabled != 0);
    // The cache holds low-precision copies of weights, which the optimizer is about to change.
    at::autocast::clear_cache();
  });
}

char* jcs_channels_last(void* t, torch::Tensor** out) {
  return guarded([&] { *out = new torch::Tensor(tensor(t).contiguous(at::MemoryFormat::ChannelsLast)); });
}

char* jcs_is_channels_last(void* t, int* out) {
  return guarded([&] { *out = tensor(t).is_contiguous(at::MemoryFormat::ChannelsLast); });
}

char* jcs_is_contiguous(void* t, int* out) {
  return guarded([&] { *out = tensor(t).is_contiguous(); });
}

char* jcs_current_stream(int device, int64_t* id, void** handle) {
  return guarded([&] {
    auto stream = at::accelerator::getCurrentStream(static_cast<c10::DeviceIndex>(device));
    *id = stream.id();
    *handle = stream.native_handle();
  });
}

// A stream of libtorch's pool, which lives as long as the process.
char* jcs_new_stream(int device, int64_t* id) {
  return guarded([&] { *id = c10::impl::VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool(cuda(device)).id(); });
}

// Copies a tensor of the host to the device on stream `id`. The copy in pinned memory is not used again before the
// stream has passed it: libtorch's allocator of pinned memory knows on which stream it was read.
char* jcs_upload(int device, int64_t id, void* t, torch::Tensor** out) {
  return guarded([&] {
    auto pinned = tensor(t).pin_memory();
    c10::StreamGuard on(cuda_stream(device, id));
    *out = new torch::Tensor(pinned.to(cuda(device), pinned.scalar_type(), /*non_blocking=*/true));
  });
}

// What the current stream gets from now on waits for what stream `id` has got by now.
char* jcs_wait_for_stream(int device, int64_t id) {
  return guarded([&] {
    c10::Event done(at::kCUDA);
    done.record(cuda_stream(device, id));
    done.block(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(cuda(device)));
  });
}

// The memory of `t` is not given to anybody before the current stream has passed what it has got when `t` is dropped.
char* jcs_record_stream(int device, void* t) {
  return guarded([&] { tensor(t).record_stream(c10::impl::VirtualGuardImpl(at::kCUDA).getStream(cuda(device))); });
}

// Gives memory that libtorch keeps for later back to the accelerator, where there is one.
char* jcs_release_memory() {
  return guarded([&] {
    if (at::accelerator::getAccelerator()) at::accelerator::emptyCache();
  });
}

char* jcs_generator_state(torch::Tensor** out) {
  return guarded([&] {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    *out = new torch::Tensor(generator.get_state());
  });
}

char* jcs_set_generator_state(void* state) {
  return guarded([&] {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(tensor(state));
  });
}

char* jcs_load_cuda() {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) return nullptr;
  return strdup(dlerror());
}

// `runtime`: the version of the CUDA runtime that libtorch was compiled with, 13000 for 13.0. `config`: empty without a driver that
// serves this version; made by strdup; the caller frees it.
char* jcs_cuda_build(int64_t* runtime, char** config) {
  return guarded([&] {
    // The first answer to this stays, so nobody may ask before the library is loaded.
    const auto& hooks = at::detail::getCUDAHooks();
    TORCH_CHECK(hooks.hasCUDART(), "libtorch was asked for CUDA before its CUDA half was loaded");
    *runtime = hooks.versionCUDART();
    std::string known;
    try {
      known = hooks.showConfig();
    } catch (const c10::Error&) {
      // It asks the runtime for its version, which needs a driver that is new enough.
    }
    *config = strdup(known.c_str());
  });
}

const char* jcs_torch_version() { return TORCH_VERSION; }

}  // extern "C"
