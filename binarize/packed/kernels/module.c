/* Python's door to the kernels.  Limited API: one build serves every CPython from 3.10.
 *
 *     variants() -> ((name, layout, lanes, masked_lanes), ...)   what this processor can run, best first
 *     FIELDS                                                     names of the integers that conv and pack take
 *     conv(variant, *fields), pack(variant, *fields)             addresses and sizes in the order of FIELDS
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

static const Variant *read_call(PyObject *const *args, Py_ssize_t count, ConvCall *call)
{
    if (count != FIELD_COUNT + 1) {
        PyErr_Format(PyExc_TypeError, "expected a variant and %d integers, got %zd", FIELD_COUNT, count);
        return NULL;
    }
    const long index = PyLong_AsLong(args[0]);
    if (index == -1 && PyErr_Occurred())
        return NULL;
    if (index < 0 || index >= available_count) {
        PyErr_Format(PyExc_ValueError, "variant %ld: this processor has %d", index, available_count);
        return NULL;
    }
    int64_t *fields = (int64_t *)call; /* nothing but int64_t, in the order of CONV_FIELDS */
    for (Py_ssize_t i = 0; i < FIELD_COUNT; i++) {
        fields[i] = PyLong_AsLongLong(args[i + 1]);
        if (fields[i] == -1 && PyErr_Occurred())
            return NULL;
    }
    return available[index];
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
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, wrong);
        return NULL;
    }
    Py_RETURN_NONE;
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

static PyObject *py_variants(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    PyObject *all = PyTuple_New(available_count);
    for (int i = 0; all && i < available_count; i++) {
        const Variant *variant = available[i];
        PyObject *row = Py_BuildValue("ssii", variant->name, variant->layout, variant->lanes,
                                      variant->masked_lanes);
        if (!row || PyTuple_SetItem(all, i, row))
            Py_CLEAR(all);
    }
    return all;
}

static PyMethodDef methods[] = {
    {"variants", py_variants, METH_NOARGS, "What this processor can run, best first."},
    {"conv", (PyCFunction)(void (*)(void))py_conv, METH_FASTCALL, "Binary convolution of a batch."},
    {"pack", (PyCFunction)(void (*)(void))py_pack, METH_FASTCALL, "Signs of a batch as words."},
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
