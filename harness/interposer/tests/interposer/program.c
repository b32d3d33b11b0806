/* File calls, standard streams, and a driver loaded late. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words) {
    char path[4096], line[64] = "";
    snprintf(path, sizeof path, "%s/file", words[count - 1]);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0)
        return 1;
    errno = 0;
    long written = pwrite(file, "HELLO", 5, 0);
    printf("write %ld errno %d\n", written, errno);
    FILE *stream = fdopen(file, "r");
    fgets(line, sizeof line, stream);
    fclose(stream);
    printf("copy %s\n", line);

    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    int (*init)(unsigned) = dlsym(driver, "cuInit");
    int (*retain)(void **, int) = dlsym(driver, "cuDevicePrimaryCtxRetain");
    int (*current)(void *) = dlsym(driver, "cuCtxSetCurrent");
    int (*allocate)(unsigned long long *, size_t) = dlsym(driver, "cuMemAlloc_v2");
    void *context;
    unsigned long long address;
    if (init(0) || retain(&context, 0) || current(context))
        return 2;
    printf("malloc %d\n", allocate(&address, 4096));
    return 0;
}
