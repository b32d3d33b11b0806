/* A driver and a cuFile of three functions: one takes more arguments than there are registers, one writes by libc, one fails. */
#include <errno.h>
#include <unistd.h>

int cuMemcpyBatchAsync(long a, long b, long c, long d, long e, long f, long g, long h, long i) {
    return a == 1 && b == 2 && c == 3 && d == 4 && e == 5 && f == 6 && g == 7 && h == 8 && i == 9 ? 0 : 1;
}

long cuFileWrite(long file, const void *bytes, size_t count, long at, long skip) {
    return pwrite((int)file, (const char *)bytes + skip, count, at);
}

long cuFileRead(long file, void *bytes, size_t count, long at, long skip) {
    errno = 5008;
    return -1;
}
