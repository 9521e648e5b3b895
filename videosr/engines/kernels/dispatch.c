/* Which width of vectors this CPU has; and what this library was made of. */

int videosr_lanes(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        return 16;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 8 : 0;
}

const char *videosr_source(void) { return SOURCE; }

const char *videosr_build(void) { return __VERSION__ " " BUILD; }
