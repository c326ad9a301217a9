/* Ends everything in this PID namespace at the n-th call that changes the disk: a power cut, but for what the kernel
 * had not written yet. Preloaded into a package's installation by test_interrupted.py:
 *   CALLS=file of 8 octets, the calls so far   CUT_AT=n, or 0 to count alone
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t *calls;
static uint64_t cut_at;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("CALLS"), *at = getenv("CUT_AT");
    int fd = file ? open(file, O_RDWR) : -1;
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED) return;
    cut_at = at ? strtoull(at, NULL, 10) : 0;
    calls = shared;
}

static void count(void) {
    if (calls && __atomic_add_fetch(calls, 1, __ATOMIC_SEQ_CST) == cut_at) {
        kill(-1, SIGKILL);
        kill(getpid(), SIGKILL);
    }
}

#define COUNTED(result, name, given, passed)              \
    result name given {                                   \
        static result (*real) given;                      \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name); \
        count();                                          \
        return real passed;                               \
    }

COUNTED(ssize_t, write, (int fd, const void *data, size_t octets), (fd, data, octets))
COUNTED(ssize_t, pwrite64, (int fd, const void *data, size_t octets, off64_t at), (fd, data, octets, at))
COUNTED(ssize_t, copy_file_range, (int from, off64_t *a, int to, off64_t *b, size_t n, unsigned f), (from, a, to, b, n, f))
COUNTED(int, rename, (const char *from, const char *to), (from, to))
COUNTED(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
COUNTED(int, renameat2, (int a, const char *from, int b, const char *to, unsigned f), (a, from, b, to, f))
COUNTED(int, link, (const char *from, const char *to), (from, to))
COUNTED(int, linkat, (int a, const char *from, int b, const char *to, int f), (a, from, b, to, f))
COUNTED(int, symlink, (const char *to, const char *name), (to, name))
COUNTED(int, symlinkat, (const char *to, int at, const char *name), (to, at, name))
COUNTED(int, unlink, (const char *name), (name))
COUNTED(int, unlinkat, (int at, const char *name, int f), (at, name, f))
COUNTED(int, rmdir, (const char *name), (name))
COUNTED(int, mkdir, (const char *name, mode_t mode), (name, mode))
COUNTED(int, mkdirat, (int at, const char *name, mode_t mode), (at, name, mode))
COUNTED(int, ftruncate, (int fd, off_t octets), (fd, octets))
