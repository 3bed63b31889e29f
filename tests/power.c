/* Writes down what a process does to the files under POWER_ROOT, in the order in which it does it, to POWER_LOG.
 *
 * A record is a line "op inode offset length path1 path2" with tabs between, and then `length` bytes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define ORDERED pthread_mutex_lock(&order)
#define DONE pthread_mutex_unlock(&order)

static int within(const char *path) {
    const char *root = getenv("POWER_ROOT");
    size_t length = root ? strlen(root) : 0;
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int resolve(int folder, const char *path, char *into) {
    char base[PATH_MAX];
    if (path[0] == '/') {
        snprintf(into, PATH_MAX, "%s", path);
    } else {
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            ssize_t got = readlink(link, base, sizeof base - 1);
            if (got < 0) return 0;
            base[got] = 0;
        }
        snprintf(into, PATH_MAX, "%.2000s/%.2000s", base, path);
    }
    return within(into);
}

static int watched(int descriptor) {
    char path[PATH_MAX], link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t got = readlink(link, path, sizeof path - 1);
    if (got < 0) return 0;
    path[got] = 0;
    return within(path);
}

static unsigned long inode_of(int descriptor) {
    struct stat found;
    return fstat(descriptor, &found) ? 0 : found.st_ino;
}

static unsigned long inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : found.st_ino;
}

static void note(const char *op, unsigned long inode, long offset, const void *data, size_t length, const char *one,
                 const char *two) {
    static int log = -1;
    int kept = errno;
    if (log < 0) log = syscall(SYS_openat, AT_FDCWD, getenv("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char head[2 * PATH_MAX + 100];
    int size = snprintf(head, sizeof head, "%s\t%lu\t%ld\t%zu\t%s\t%s\n", op, inode, offset, length, one, two);
    struct iovec parts[2] = {{head, size}, {(void *)data, length}};
    syscall(SYS_writev, log, parts, length ? 2 : 1);
    errno = kept;
}

static int opened(int descriptor, int folder, const char *path, int flags) {
    char full[PATH_MAX];
    if (descriptor >= 0 && (flags & (O_CREAT | O_TRUNC)) && resolve(folder, path, full)) {
        if (flags & O_CREAT) note("create", inode_of(descriptor), 0, 0, 0, full, "");
        if (flags & O_TRUNC) note("size", inode_of(descriptor), 0, 0, 0, "", "");
    }
    return descriptor;
}

#define OPEN(name)                                                                                                  \
    int name(const char *path, int flags, ...) {                                                                    \
        REAL(name);                                                                                                 \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more);                      \
        ORDERED; int got = opened(real(path, flags, mode), AT_FDCWD, path, flags); DONE;                            \
        return got;                                                                                                 \
    }
#define OPENAT(name)                                                                                                \
    int name(int folder, const char *path, int flags, ...) {                                                        \
        REAL(name);                                                                                                 \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more);                      \
        ORDERED; int got = opened(real(folder, path, flags, mode), folder, path, flags); DONE;                      \
        return got;                                                                                                 \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int descriptor, const void *data, size_t length) {
    REAL(write);
    if (!watched(descriptor)) return real(descriptor, data, length);
    ORDERED;
    ssize_t got = real(descriptor, data, length);
    if (got > 0) note("write", inode_of(descriptor), lseek(descriptor, 0, SEEK_CUR) - got, data, got, "", "");
    DONE;
    return got;
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(writev);
    if (!watched(descriptor)) return real(descriptor, parts, count);
    return count ? write(descriptor, parts[0].iov_base, parts[0].iov_len) : 0;
}

#define PWRITE(name, kind)                                                                                          \
    ssize_t name(int descriptor, const void *data, size_t length, kind offset) {                                    \
        REAL(name);                                                                                                 \
        if (!watched(descriptor)) return real(descriptor, data, length, offset);                                    \
        ORDERED;                                                                                                    \
        ssize_t got = real(descriptor, data, length, offset);                                                       \
        if (got > 0) note("write", inode_of(descriptor), offset, data, got, "", "");                                \
        DONE;                                                                                                       \
        return got;                                                                                                 \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

/* whoever copies inside the kernel falls back to reading and writing */
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
    REAL(sendfile);
    if (watched(out)) { errno = EINVAL; return -1; }
    return real(out, in, offset, count);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) {
    REAL(sendfile64);
    if (watched(out)) { errno = EINVAL; return -1; }
    return real(out, in, offset, count);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
    REAL(copy_file_range);
    if (watched(out)) { errno = EXDEV; return -1; }
    return real(in, from, out, to, length, flags);
}

#define ON_FILE(name, given, passed, op, offset)                                                                    \
    int name given {                                                                                                \
        REAL(name);                                                                                                 \
        ORDERED;                                                                                                    \
        int got = real passed;                                                                                      \
        if (!got && watched(descriptor)) note(op, inode_of(descriptor), offset, 0, 0, "", "");                      \
        DONE;                                                                                                       \
        return got;                                                                                                 \
    }
ON_FILE(fsync, (int descriptor), (descriptor), "sync", 0)
ON_FILE(fdatasync, (int descriptor), (descriptor), "sync", 0)
ON_FILE(ftruncate, (int descriptor, off_t size), (descriptor, size), "size", size)
ON_FILE(ftruncate64, (int descriptor, off64_t size), (descriptor, size), "size", size)

#define ON_NAME(name, given, passed, op, folder, path)                                                              \
    int name given {                                                                                                \
        REAL(name);                                                                                                 \
        char full[PATH_MAX];                                                                                        \
        ORDERED;                                                                                                    \
        int got = real passed;                                                                                      \
        if (!got && resolve(folder, path, full)) note(op, inode_at(full), 0, 0, 0, full, "");                       \
        DONE;                                                                                                       \
        return got;                                                                                                 \
    }
ON_NAME(mkdir, (const char *path, mode_t mode), (path, mode), "mkdir", AT_FDCWD, path)
ON_NAME(mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), "mkdir", at, path)
ON_NAME(unlink, (const char *path), (path), "remove", AT_FDCWD, path)
ON_NAME(unlinkat, (int at, const char *path, int flags), (at, path, flags), "remove", at, path)
ON_NAME(rmdir, (const char *path), (path), "remove", AT_FDCWD, path)

#define ON_NAMES(name, given, passed, op, folder, path, folder2, path2)                                             \
    int name given {                                                                                                \
        REAL(name);                                                                                                 \
        char one[PATH_MAX], two[PATH_MAX];                                                                          \
        ORDERED;                                                                                                    \
        int got = real passed;                                                                                      \
        int first = resolve(folder, path, one), second = resolve(folder2, path2, two);                              \
        if (!got && first && second) note(op, inode_at(two), 0, 0, 0, one, two);                                    \
        DONE;                                                                                                       \
        return got;                                                                                                 \
    }
ON_NAMES(rename, (const char *a, const char *b), (a, b), "rename", AT_FDCWD, a, AT_FDCWD, b)
ON_NAMES(renameat, (int f, const char *a, int g, const char *b), (f, a, g, b), "rename", f, a, g, b)
ON_NAMES(renameat2, (int f, const char *a, int g, const char *b, unsigned flags), (f, a, g, b, flags), "rename", f, a, g, b)
ON_NAMES(link, (const char *a, const char *b), (a, b), "link", AT_FDCWD, a, AT_FDCWD, b)
ON_NAMES(linkat, (int f, const char *a, int g, const char *b, int flags), (f, a, g, b, flags), "link", f, a, g, b)
