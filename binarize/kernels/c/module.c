/* Python's door to the kernels.  Limited API: one build serves every CPython from 3.10.
 *
 *     variants() -> ((name, layout, lanes, masked_lanes, float_lanes), ...)   what this processor can run, best first
 *     FIELDS                                                     names of the integers of a call of conv and pack
 *     conv(variant, call, threads, *buffers), pack(...)          bytes of 64-bit integers in the order of FIELDS, then
 *                                                                what is another in each call: PASSED
 *     rows(variant, *fields, a, b), filters(variant, *fields), floats(variant, *fields)
 *                                                                in the order of ROW_*, FILTER_*, FLOAT_* of kernels.h
 *     digest(address, bytes, size, ...)                          one number for what the first `size` bytes hold
 *
 * An address comes with the bytes that can be read from there: the caller vouches for these, checks.c for the rest. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

#include <string.h>

/* Of a call of conv or pack: what is not in its bytes. */
#define PASSED(BUFFER) BUFFER(input) BUFFER(residual) BUFFER(dots) BUFFER(result) BUFFER(bits)

#define COUNT_INTEGER(name) +1
#define COUNT_BUFFER(name) +2
#define COUNT_ADDRESS(type, name) +2
enum {
    FIELD_COUNT = 0 CONV_FIELDS(COUNT_INTEGER, COUNT_BUFFER),
    PASSED_COUNT = 1 PASSED(COUNT_BUFFER), /* with the threads */
    ROW_FIELDS = 0 ROW_INTEGERS(COUNT_INTEGER) ROW_ADDRESSES(COUNT_ADDRESS),
    FILTER_FIELDS = 0 FILTER_INTEGERS(COUNT_INTEGER) FILTER_ADDRESSES(COUNT_ADDRESS),
    FLOAT_FIELD_COUNT = 0 FLOAT_FIELDS(COUNT_INTEGER, COUNT_BUFFER)
};

static const Variant *available[MAX_VARIANTS];
static int available_count;

/* The variant that an argument names. */
static const Variant *read_variant(PyObject *argument)
{
    const long index = PyLong_AsLong(argument);
    if (index == -1 && PyErr_Occurred())
        return NULL;
    if (index < 0 || index >= available_count) {
        PyErr_Format(PyExc_ValueError, "variant %ld: this processor has %d", index, available_count);
        return NULL;
    }
    return available[index];
}

static int read_integers(PyObject *const *args, int count, int64_t *fields)
{
    for (int i = 0; i < count; i++) {
        fields[i] = PyLong_AsLongLong(args[i]);
        if (fields[i] == -1 && PyErr_Occurred())
            return 0;
    }
    return 1;
}

/* The variant that the first argument names, and as many integers behind it as there must be. */
static const Variant *read_fields(PyObject *const *args, Py_ssize_t count, int expected, int more, int64_t *fields)
{
    if (count != 1 + expected + more) {
        PyErr_Format(PyExc_TypeError, "expected a variant and %d numbers, got %zd", expected + more, count);
        return NULL;
    }
    const Variant *variant = read_variant(args[0]);
    return variant && read_integers(args + 1, expected, fields) ? variant : NULL;
}

static const Variant *read_call(PyObject *const *args, Py_ssize_t count, ConvCall *call)
{
    int64_t passed[PASSED_COUNT], *field = passed;
    char *bytes;
    Py_ssize_t length;
    if (count != 2 + PASSED_COUNT) {
        PyErr_Format(PyExc_TypeError, "expected a variant, a call and %d integers, got %zd", PASSED_COUNT, count);
        return NULL;
    }
    const Variant *variant = read_variant(args[0]);
    if (!variant || PyBytes_AsStringAndSize(args[1], &bytes, &length) || !read_integers(args + 2, PASSED_COUNT, passed))
        return NULL;
    if (length != (Py_ssize_t)sizeof *call) {
        PyErr_Format(PyExc_ValueError, "a call has %zu bytes, got %zd", sizeof *call, length);
        return NULL;
    }
    memcpy(call, bytes, sizeof *call); /* nothing but int64_t, in the order of CONV_FIELDS */
    call->threads = *field++;
#define PASS(name)                                                                                            \
    call->name = *field++;                                                                                    \
    call->name##_bytes = *field++;
    PASSED(PASS)
    return variant;
}

static PyObject *done(const char *wrong)
{
    if (wrong == out_of_memory)
        return PyErr_NoMemory();
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, wrong);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *run(PyObject *const *args, Py_ssize_t count,
                     const char *(*work)(const Variant *, const ConvCall *))
{
    ConvCall call;
    const char *wrong;
    const Variant *variant = read_call(args, count, &call);
    if (!variant)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    wrong = work(variant, &call);
    Py_END_ALLOW_THREADS
    return done(wrong);
}

static PyObject *py_conv(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    return run(args, count, convolve);
}

static PyObject *py_pack(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    return run(args, count, pack_image);
}

#define TAKE_INTEGER(name) call.name = *field++;
#define TAKE_ADDRESS(type, name)                                                                              \
    call.name = (type *)(intptr_t)*field++;                                                                   \
    call.name##_bytes = *field++;

static PyObject *py_rows(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    int64_t fields[ROW_FIELDS], *field = fields;
    RowsCall call;
    const char *wrong;
    (void)self;
    const Variant *variant = read_fields(args, count, ROW_FIELDS, 2, fields);
    if (!variant)
        return NULL;
    ROW_INTEGERS(TAKE_INTEGER)
    ROW_ADDRESSES(TAKE_ADDRESS)
    call.a = PyFloat_AsDouble(args[count - 2]);
    call.b = PyFloat_AsDouble(args[count - 1]);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    wrong = run_rows(variant, &call);
    Py_END_ALLOW_THREADS
    return done(wrong);
}

static PyObject *py_filters(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    int64_t fields[FILTER_FIELDS], *field = fields;
    FiltersCall call;
    const char *wrong;
    (void)self;
    const Variant *variant = read_fields(args, count, FILTER_FIELDS, 0, fields);
    if (!variant)
        return NULL;
    FILTER_INTEGERS(TAKE_INTEGER)
    FILTER_ADDRESSES(TAKE_ADDRESS)
    Py_BEGIN_ALLOW_THREADS
    wrong = run_filters(variant, &call);
    Py_END_ALLOW_THREADS
    return done(wrong);
}

static PyObject *py_floats(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    FloatCall call;
    const char *wrong;
    (void)self;
    /* nothing but int64_t, in the order of FLOAT_FIELDS */
    const Variant *variant = read_fields(args, count, FLOAT_FIELD_COUNT, 0, (int64_t *)&call);
    if (!variant)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    wrong = run_floats(variant, &call);
    Py_END_ALLOW_THREADS
    return done(wrong);
}

static PyObject *py_digest(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t result = 0;
    (void)self;
    if (count % 3)
        return PyErr_Format(PyExc_TypeError, "expected an address, bytes and a size each, got %zd integers", count);
    for (Py_ssize_t i = 0; i < count; i += 3) {
        int64_t piece[3];
        if (!read_integers(args + i, 3, piece))
            return NULL;
        const int64_t address = piece[0], bytes = piece[1], size = piece[2];
        if (size < 0 || size > bytes || (size && !address))
            return PyErr_Format(PyExc_ValueError, "%lld bytes cannot be read from %lld, where %lld are",
                                (long long)size, (long long)address, (long long)bytes);
        result = digest((const uint8_t *)(intptr_t)address, size, result);
    }
    return PyLong_FromUnsignedLongLong(result);
}

static PyObject *py_variants(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    PyObject *all = PyTuple_New(available_count);
    for (int i = 0; all && i < available_count; i++) {
        const Variant *variant = available[i];
        PyObject *row = Py_BuildValue("ssiii", variant->name, variant->layout, variant->lanes,
                                      variant->masked_lanes, variant->float_lanes);
        if (!row || PyTuple_SetItem(all, i, row))
            Py_CLEAR(all);
    }
    return all;
}

static PyMethodDef methods[] = {
    {"variants", py_variants, METH_NOARGS, "What this processor can run, best first."},
    {"conv", (PyCFunction)(void (*)(void))py_conv, METH_FASTCALL, "Binary convolution of a batch."},
    {"pack", (PyCFunction)(void (*)(void))py_pack, METH_FASTCALL, "Signs of a batch as words."},
    {"rows", (PyCFunction)(void (*)(void))py_rows, METH_FASTCALL, "Elementwise work of training."},
    {"filters", (PyCFunction)(void (*)(void))py_filters, METH_FASTCALL, "Layout of the signs of a weight."},
    {"floats", (PyCFunction)(void (*)(void))py_floats, METH_FASTCALL, "Float convolution of a batch."},
    {"digest", (PyCFunction)(void (*)(void))py_digest, METH_FASTCALL, "One number for what some memory holds."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", "Binary convolution kernels.", -1, methods,
                                 NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    available_count = available_variants(available);
    PyObject *module = PyModule_Create(&definition);
    if (!module)
        return NULL;
#define NAME(name) #name,
#define NAME_BUFFER(name) #name, #name "_bytes",
    static const char *const names[] = {CONV_FIELDS(NAME, NAME_BUFFER)};
    PyObject *fields = PyTuple_New(FIELD_COUNT);
    for (int i = 0; fields && i < FIELD_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name || PyTuple_SetItem(fields, i, name))
            Py_CLEAR(fields);
    }
    if (!fields || PyModule_AddObject(module, "FIELDS", fields)) {
        Py_XDECREF(fields);
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
