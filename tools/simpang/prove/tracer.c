/* Preloaded into a process, it writes down everything that the process does to the files below one folder, in
   the order in which it was done, and the marks that the process itself sets in between.

   SIMPANG_TRACE_ROOT: the folder, an absolute path without symbolic links. SIMPANG_TRACE_LOG: where to; outside.
   Syncs are written down and not made: what a sync is worth at a power cut is for whoever reads the log.

   Entry: "<BxxxIQII" = kind, fd, offset, bytes of the first piece, bytes of the second; then both pieces.
     O open: offset = flags, first = path below the folder   C close
     W write: offset, first = data                           T truncate: offset = new size
     A allocate: offset = end                                S sync: offset = 1 for fdatasync
     R rename: first -> second    U unlink: first    K mkdir: first
     M mark: first = what the process said
     X something that this tracer cannot follow: first = its name
   Only calls that succeed are written down. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FDS 65536

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static unsigned char followed[MOST_FDS];
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;

#define REAL(type, name, ...)                                                                                \
    static type (*real)(__VA_ARGS__);                                                                        \
    if (!real)                                                                                               \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

static void give_up(const char *why)
{
    dprintf(2, "tracer: %s: %s\n", why, strerror(errno));
    _exit(97);
}

__attribute__((constructor)) static void begin(void)
{
    const char *folder = getenv("SIMPANG_TRACE_ROOT"), *log = getenv("SIMPANG_TRACE_LOG");
    if (!folder || !log)
        return;
    root_length = strlen(folder);
    if (root_length >= sizeof root - 1)
        give_up("the folder's name is too long");
    memcpy(root, folder, root_length + 1);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        give_up("the log cannot be opened");
    /* A number that no file of the process will get. */
    int high = (int)syscall(SYS_fcntl, log_fd, F_DUPFD_CLOEXEC, 900);
    if (high >= 0) {
        syscall(SYS_close, log_fd);
        log_fd = high;
    }
}

static void put(const void *data, size_t size)
{
    const char *at = data;
    while (size) {
        ssize_t done = syscall(SYS_write, log_fd, at, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            give_up("the log cannot be written");
        at += done;
        size -= (size_t)done;
    }
}

static void note(char kind, int fd, uint64_t offset, const void *first, size_t first_size, const void *second,
                 size_t second_size)
{
    unsigned char head[24] = {0};
    uint32_t number = (uint32_t)fd, sizes[2] = {(uint32_t)first_size, (uint32_t)second_size};
    int error = errno;
    head[0] = (unsigned char)kind;
    memcpy(head + 4, &number, 4);
    memcpy(head + 8, &offset, 8);
    memcpy(head + 16, sizes, 8);
    put(head, sizeof head);
    put(first, first_size);
    put(second, second_size);
    errno = error;
}

static void note_unknown(const char *name) { note('X', 0, 0, name, strlen(name), NULL, 0); }

static int follows(int fd) { return log_fd >= 0 && fd >= 0 && fd < MOST_FDS && followed[fd]; }

/* The part of a path below the folder, or NULL. "" is the folder itself. */
static const char *below(const char *path)
{
    if (log_fd < 0 || strncmp(path, root, root_length))
        return NULL;
    if (!path[root_length])
        return "";
    return path[root_length] == '/' ? path + root_length + 1 : NULL;
}

static const char *resolve(int folder, const char *path, char *room)
{
    char link[64];
    if (path[0] == '/')
        return below(path);
    if (folder == AT_FDCWD)
        strcpy(link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, room, PATH_MAX - 1);
    if (size < 0)
        return NULL;
    snprintf(room + size, PATH_MAX - (size_t)size, "/%s", path);
    return below(room);
}

void simpang_mark(const char *data, size_t size)
{
    if (log_fd < 0)
        return;
    pthread_mutex_lock(&lock);
    note('M', 0, 0, data, size, NULL, 0);
    pthread_mutex_unlock(&lock);
}

/* ---- opening and closing */

static int opened(int fd, int flags)
{
    char link[64], path[PATH_MAX];
    if (fd < 0 || log_fd < 0)
        return fd;
    int error = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    const char *name = NULL;
    if (size >= 0) {
        path[size] = 0;
        name = below(path);
    }
    if (name && fd >= MOST_FDS)
        give_up("a file's number is too high");
    if (fd < MOST_FDS)
        followed[fd] = name != NULL;
    if (name) {
        if ((flags & O_DSYNC) && (flags & O_ACCMODE) != O_RDONLY)
            note_unknown("O_SYNC");
        note('O', fd, (uint64_t)(unsigned)flags, name, strlen(name), NULL, 0);
    }
    errno = error;
    return fd;
}

static int open_any(int folder, const char *path, int flags, mode_t mode)
{
    pthread_mutex_lock(&lock);
    int fd = opened((int)syscall(SYS_openat, folder, path, flags | O_LARGEFILE, mode), flags);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define WITH_MODE                                                                                            \
    mode_t mode = 0;                                                                                         \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                     \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        mode = va_arg(rest, mode_t);                                                                         \
        va_end(rest);                                                                                        \
    }

int open(const char *path, int flags, ...) { WITH_MODE return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { WITH_MODE return open_any(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { WITH_MODE return open_any(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { WITH_MODE return open_any(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }
int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return open_any(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return open_any(folder, path, flags, 0); }

int close(int fd)
{
    pthread_mutex_lock(&lock);
    int was = follows(fd), done = (int)syscall(SYS_close, fd);
    if (was) {
        followed[fd] = 0;
        note('C', fd, 0, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

/* ---- writing */

static void wrote(int fd, const void *data, ssize_t size, off_t offset)
{
    if (size > 0)
        note('W', fd, (uint64_t)offset, data, (size_t)size, NULL, 0);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t)
    if (!follows(fd))
        return real(fd, data, size, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, data, size, offset);
    wrote(fd, data, done, offset);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

/* Where the next write of a file goes. */
static off_t place(int fd)
{
    struct stat status;
    int flags = (int)syscall(SYS_fcntl, fd, F_GETFL);
    if (flags & O_APPEND)
        return fstat(fd, &status) ? 0 : status.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (!follows(fd))
        return syscall(SYS_write, fd, data, size);
    pthread_mutex_lock(&lock);
    off_t offset = place(fd);
    ssize_t done = syscall(SYS_write, fd, data, size);
    wrote(fd, data, done, offset);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    if (!follows(fd))
        return syscall(SYS_writev, fd, pieces, count);
    ssize_t all = 0;
    pthread_mutex_lock(&lock);
    for (int at = 0; at < count; at++) {
        ssize_t done = write(fd, pieces[at].iov_base, pieces[at].iov_len);
        if (done < 0) {
            all = all ? all : -1;
            break;
        }
        all += done;
        if ((size_t)done < pieces[at].iov_len)
            break;
    }
    pthread_mutex_unlock(&lock);
    return all;
}

int ftruncate64(int fd, off64_t size)
{
    REAL(int, ftruncate64, int, off64_t)
    pthread_mutex_lock(&lock);
    int done = real(fd, size);
    if (!done && follows(fd))
        note('T', fd, (uint64_t)size, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    REAL(int, posix_fallocate64, int, off64_t, off64_t)
    pthread_mutex_lock(&lock);
    int done = real(fd, offset, size);
    if (!done && follows(fd))
        note('A', fd, (uint64_t)(offset + size), NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

/* ---- syncing: written down, not made */

static int synced(int fd, int data_only)
{
    pthread_mutex_lock(&lock);
    note('S', fd, (uint64_t)data_only, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return follows(fd) ? synced(fd, 0) : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return follows(fd) ? synced(fd, 1) : (int)syscall(SYS_fdatasync, fd); }

/* ---- names */

static int rename_any(int from, const char *before, int to, const char *after, unsigned flags)
{
    char rooms[2][PATH_MAX];
    pthread_mutex_lock(&lock);
    const char *one = resolve(from, before, rooms[0]), *other = resolve(to, after, rooms[1]);
    int done = (int)syscall(SYS_renameat2, from, before, to, after, flags);
    if (!done && (one || other)) {
        if (one && other && !flags)
            note('R', 0, 0, one, strlen(one), other, strlen(other));
        else
            note_unknown("rename in or out of the folder");
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *before, const char *after) { return rename_any(AT_FDCWD, before, AT_FDCWD, after, 0); }
int renameat(int from, const char *before, int to, const char *after) { return rename_any(from, before, to, after, 0); }
int renameat2(int from, const char *before, int to, const char *after, unsigned flags)
{
    return rename_any(from, before, to, after, flags);
}

static int name_call(char kind, int folder, const char *path, long number, long last)
{
    char room[PATH_MAX];
    pthread_mutex_lock(&lock);
    const char *name = resolve(folder, path, room);
    int done = (int)syscall(number, folder, path, last);
    if (!done && name) {
        if (kind == 'U' && last)
            note_unknown("rmdir");
        else
            note(kind, 0, 0, name, strlen(name), NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path) { return name_call('U', AT_FDCWD, path, SYS_unlinkat, 0); }
int unlinkat(int folder, const char *path, int flags) { return name_call('U', folder, path, SYS_unlinkat, flags); }
int rmdir(const char *path) { return name_call('U', AT_FDCWD, path, SYS_unlinkat, AT_REMOVEDIR); }
int mkdir(const char *path, mode_t mode) { return name_call('K', AT_FDCWD, path, SYS_mkdirat, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return name_call('K', folder, path, SYS_mkdirat, mode); }

/* ---- what would escape the log, and is therefore told */

void *mmap64(void *at, size_t size, int access, int flags, int fd, off64_t offset)
{
    REAL(void *, mmap64, void *, size_t, int, int, int, off64_t)
    if (follows(fd) && (flags & MAP_SHARED) && (access & PROT_WRITE)) {
        pthread_mutex_lock(&lock);
        note_unknown("mmap of a file for writing");
        pthread_mutex_unlock(&lock);
    }
    return real(at, size, access, flags, fd, offset);
}

void *mmap(void *at, size_t size, int access, int flags, int fd, off_t offset)
{
    return mmap64(at, size, access, flags, fd, offset);
}

static void refuse_out(int fd, const char *name)
{
    if (follows(fd)) {
        pthread_mutex_lock(&lock);
        note_unknown(name);
        pthread_mutex_unlock(&lock);
    }
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t size)
{
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t)
    if (follows(out)) {
        /* The data does not pass here: whoever copies so falls back on reading and writing. */
        errno = EINVAL;
        return -1;
    }
    return real(out, in, offset, size);
}

ssize_t sendfile(int out, int in, off_t *offset, size_t size) { return sendfile64(out, in, offset, size); }

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned)
    if (follows(out)) {
        errno = EINVAL;
        return -1;
    }
    return real(in, from, out, to, size, flags);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset)
{
    REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t)
    refuse_out(fd, "pwritev");
    return real(fd, pieces, count, offset);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    REAL(int, fallocate64, int, int, off64_t, off64_t)
    refuse_out(fd, "fallocate");
    return real(fd, mode, offset, size);
}

int dup(int fd)
{
    REAL(int, dup, int)
    refuse_out(fd, "dup");
    return real(fd);
}

int link(const char *before, const char *after)
{
    REAL(int, link, const char *, const char *)
    char room[PATH_MAX];
    if (resolve(AT_FDCWD, after, room)) {
        pthread_mutex_lock(&lock);
        note_unknown("link");
        pthread_mutex_unlock(&lock);
    }
    return real(before, after);
}
