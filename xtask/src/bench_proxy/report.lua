-- What wrk found, as one line for a program.
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    "sample requests=%d microseconds=%d bytes=%d failed=%d p50=%d p99=%d p999=%d\n",
    summary.requests, summary.duration, summary.bytes, failed,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
