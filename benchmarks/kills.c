/* Counts the file operations of a process below a folder, and kills it at one of them: LD_PRELOAD=kills.so.

   kills_begin(folder, at, half)  from now on; at = 0: only count. With half, the write it is killed at writes its first half.
   kills_count()                  how many there were
   Operations: opening for writing, write, rename, link, unlink, mkdir, rmdir, chmod, truncate, fsync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long at, count;
static int half, active;
static pid_t owner;

void kills_begin(const char *where, long number, int halves) {
    snprintf(folder, sizeof folder, "%s", where);
    at = number; half = halves; count = 0; owner = getpid(); active = 1;
}

long kills_count(void) { return count; }

static int below(int dir, const char *path) {
    char full[2 * PATH_MAX], link[64];
    ssize_t n = 0;
    if (!active || getpid() != owner) return 0;
    if (!path || path[0] != '/') {
        if (path && dir == AT_FDCWD) {
            if (!getcwd(full, PATH_MAX)) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            n = readlink(link, full, PATH_MAX - 1);
            if (n < 0) return 0;
            full[n] = 0;
        }
        if (path) { strcat(full, "/"); strncat(full, path, PATH_MAX - 1); }
        path = full;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

/* Whether this is the one to be killed at. */
static int due(int dir, const char *path) { return below(dir, path) && ++count == at; }

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

#define AT(dir, path) do { if (due(dir, path)) die(); } while (0)
#define NEXT(type, name, ...) \
    static type (*next)(__VA_ARGS__); \
    if (!next) next = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(int, #name, const char *, int, ...); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) AT(AT_FDCWD, path); \
        return next(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        NEXT(int, #name, int, const char *, int, ...); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) AT(dir, path); \
        return next(dir, path, flags, mode); \
    }
#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        NEXT(FILE *, #name, const char *, const char *); \
        if (strpbrk(mode, "wa+")) AT(AT_FDCWD, path); \
        return next(path, mode); \
    }
#define WRITE(name, declared, passed, size) \
    ssize_t name declared { \
        NEXT(ssize_t, #name, PARAMETERS); \
        if (due(fd, NULL)) { if (half) { size; next passed; } die(); } \
        return next passed; \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64) FOPEN(fopen) FOPEN(fopen64)
#define PARAMETERS int, const void *, size_t
WRITE(write, (int fd, const void *data, size_t n), (fd, data, n), n /= 2)
#undef PARAMETERS
#define PARAMETERS int, const void *, size_t, off_t
WRITE(pwrite, (int fd, const void *data, size_t n, off_t to), (fd, data, n, to), n /= 2)
WRITE(pwrite64, (int fd, const void *data, size_t n, off_t to), (fd, data, n, to), n /= 2)
#undef PARAMETERS
#define PARAMETERS int, const struct iovec *, int
WRITE(writev, (int fd, const struct iovec *data, int n), (fd, data, n), n -= n / 2)

#define PATH1(name) int name(const char *path) { NEXT(int, #name, const char *); AT(AT_FDCWD, path); return next(path); }
PATH1(unlink) PATH1(rmdir) PATH1(remove)
#define FD1(name) int name(int fd) { NEXT(int, #name, int); AT(fd, NULL); return next(fd); }
FD1(fsync) FD1(fdatasync)
#define PATH2(name) \
    int name(const char *a, const char *b) { NEXT(int, #name, const char *, const char *); AT(AT_FDCWD, b); return next(a, b); }
PATH2(rename) PATH2(link)
int symlink(const char *a, const char *b) { NEXT(int, "symlink", const char *, const char *); AT(AT_FDCWD, b); return next(a, b); }
int unlinkat(int dir, const char *path, int flags) { NEXT(int, "unlinkat", int, const char *, int); AT(dir, path); return next(dir, path, flags); }
int mkdir(const char *path, mode_t mode) { NEXT(int, "mkdir", const char *, mode_t); AT(AT_FDCWD, path); return next(path, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { NEXT(int, "mkdirat", int, const char *, mode_t); AT(dir, path); return next(dir, path, mode); }
int chmod(const char *path, mode_t mode) { NEXT(int, "chmod", const char *, mode_t); AT(AT_FDCWD, path); return next(path, mode); }
int fchmod(int fd, mode_t mode) { NEXT(int, "fchmod", int, mode_t); AT(fd, NULL); return next(fd, mode); }
int fchmodat(int dir, const char *path, mode_t mode, int flags) { NEXT(int, "fchmodat", int, const char *, mode_t, int); AT(dir, path); return next(dir, path, mode, flags); }
int truncate(const char *path, off_t size) { NEXT(int, "truncate", const char *, off_t); AT(AT_FDCWD, path); return next(path, size); }
int ftruncate(int fd, off_t size) { NEXT(int, "ftruncate", int, off_t); AT(fd, NULL); return next(fd, size); }
int ftruncate64(int fd, off_t size) { NEXT(int, "ftruncate64", int, off_t); AT(fd, NULL); return next(fd, size); }
int renameat(int one, const char *a, int two, const char *b) { NEXT(int, "renameat", int, const char *, int, const char *); AT(two, b); return next(one, a, two, b); }
int renameat2(int one, const char *a, int two, const char *b, unsigned flags) {
    NEXT(int, "renameat2", int, const char *, int, const char *, unsigned); AT(two, b); return next(one, a, two, b, flags);
}
int linkat(int one, const char *a, int two, const char *b, int flags) {
    NEXT(int, "linkat", int, const char *, int, const char *, int); AT(two, b); return next(one, a, two, b, flags);
}
