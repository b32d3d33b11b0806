/* Writes, and has a library write. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int count, char **words) {
    void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
    long (*late_write)(int) = dlsym(library, "late_write");
    int file = open(words[2], O_RDWR | O_CREAT, 0600);
    long first = late_write(file);
    long own = pwrite(file, "o", 1, 0);
    long second = late_write(file);
    long last = pwrite(file, "o", 1, 0);
    printf("%ld %ld %ld %ld\n", first, own, second, last);
    return count != 3;
}
