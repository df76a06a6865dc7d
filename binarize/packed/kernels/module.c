/* Python's door to the kernels.  Limited API: one build serves every CPython from 3.10.
 *
 *     variants() -> ((name, layout, lanes, masked_lanes, float_lanes), ...)   what this processor can run, best first
 *     FIELDS                                                     names of the integers that conv and pack take
 *     conv(variant, *fields), pack(variant, *fields)             addresses and sizes in the order of FIELDS
 *     rows(variant, *fields, a, b), filters(variant, *fields), floats(variant, *fields)
 *                                                                in the order of ROW_*, FILTER_*, FLOAT_* of kernels.h
 *
 *     digest(address, size, ...)                                 one number for what these pieces of memory hold
 *
 * Nothing is checked here that only a tensor knows: the caller vouches for addresses and sizes. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

enum {
#define COUNT(name) INDEX_##name,
    CONV_FIELDS(COUNT)
#undef COUNT
    FIELD_COUNT
};

static const Variant *available[MAX_VARIANTS];
static int available_count;

/* The variant that the first argument names, and the integers behind it. */
static const Variant *read_integers(PyObject *const *args, Py_ssize_t count, int expected, int64_t *fields)
{
    if (count < expected + 1) {
        PyErr_Format(PyExc_TypeError, "expected a variant and %d integers, got %zd", expected, count);
        return NULL;
    }
    const long index = PyLong_AsLong(args[0]);
    if (index == -1 && PyErr_Occurred())
        return NULL;
    if (index < 0 || index >= available_count) {
        PyErr_Format(PyExc_ValueError, "variant %ld: this processor has %d", index, available_count);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < expected; i++) {
        fields[i] = PyLong_AsLongLong(args[i + 1]);
        if (fields[i] == -1 && PyErr_Occurred())
            return NULL;
    }
    return available[index];
}

static const Variant *read_call(PyObject *const *args, Py_ssize_t count, ConvCall *call)
{
    if (count != FIELD_COUNT + 1) {
        PyErr_Format(PyExc_TypeError, "expected a variant and %d integers, got %zd", FIELD_COUNT, count);
        return NULL;
    }
    /* nothing but int64_t, in the order of CONV_FIELDS */
    return read_integers(args, count, FIELD_COUNT, (int64_t *)call);
}

static PyObject *done(const char *wrong)
{
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

#define COUNT_INTEGER(name) +1
#define COUNT_ADDRESS(type, name) +1
enum {
    ROW_FIELDS = 0 ROW_INTEGERS(COUNT_INTEGER) ROW_ADDRESSES(COUNT_ADDRESS),
    FILTER_FIELDS = 0 FILTER_INTEGERS(COUNT_INTEGER) FILTER_ADDRESSES(COUNT_ADDRESS),
    FLOAT_FIELD_COUNT = 0 FLOAT_FIELDS(COUNT_INTEGER)
};
#define TAKE_INTEGER(name) call.name = *field++;
#define TAKE_ADDRESS(type, name) call.name = (type *)(intptr_t)*field++;

static PyObject *py_rows(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    int64_t fields[ROW_FIELDS], *field = fields;
    RowsCall call;
    const char *wrong;
    (void)self;
    const Variant *variant = read_integers(args, count, ROW_FIELDS, fields);
    if (!variant)
        return NULL;
    if (count != ROW_FIELDS + 3)
        return PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd", ROW_FIELDS + 3, count);
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
    const Variant *variant = read_integers(args, count, FILTER_FIELDS, fields);
    if (!variant)
        return NULL;
    if (count != FILTER_FIELDS + 1)
        return PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd", FILTER_FIELDS + 1, count);
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
    const Variant *variant = read_integers(args, count, FLOAT_FIELD_COUNT, (int64_t *)&call);
    if (!variant)
        return NULL;
    if (count != FLOAT_FIELD_COUNT + 1)
        return PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd", FLOAT_FIELD_COUNT + 1, count);
    Py_BEGIN_ALLOW_THREADS
    wrong = run_floats(variant, &call);
    Py_END_ALLOW_THREADS
    return done(wrong);
}

static PyObject *py_digest(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t result = 0;
    (void)self;
    if (count % 2)
        return PyErr_Format(PyExc_TypeError, "expected pairs of an address and a size, got %zd integers", count);
    for (Py_ssize_t i = 0; i < count; i += 2) {
        const long long address = PyLong_AsLongLong(args[i]), size = PyLong_AsLongLong(args[i + 1]);
        if (PyErr_Occurred())
            return NULL;
        if (size < 0 || (size && !address))
            return PyErr_Format(PyExc_ValueError, "there is no memory of %lld bytes at %lld", size, address);
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
    static const char *const names[] = {CONV_FIELDS(NAME)};
#undef NAME
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
