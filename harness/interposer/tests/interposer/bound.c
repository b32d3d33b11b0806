/* Bound to the driver by the loader. */
#include <stdio.h>

int cuInit(unsigned int);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuMemAlloc_v2(unsigned long long *, size_t);

int main(void) {
    void *context;
    unsigned long long address;
    if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context))
        return 1;
    if (cuMemAlloc_v2(&address, 4096) != 2 || cuMemAlloc_v2(&address, 4096) != 0)
        return 2;
    printf("refused, then served");
    return 0;
}
