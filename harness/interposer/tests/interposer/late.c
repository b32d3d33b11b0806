/* A library that is loaded late and writes. */
#include <unistd.h>

long late_write(int file) { return pwrite(file, "l", 1, 0) + 0; }
