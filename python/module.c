#include "extension.h"

PyObject *set_error(int errnum, const char *sentence)
{
	/* Of a path's bytes, whatever they are. */
	PyObject *text = PyUnicode_DecodeFSDefault(sentence);
	PyObject *args = text ? Py_BuildValue("(iN)", errnum, text) : NULL;

	if (args)
		PyErr_SetObject(PyExc_OSError, args);
	Py_XDECREF(args);
	return NULL;
}

static PyObject *module_version(PyObject *module, PyObject *nothing)
{
	(void)module;
	(void)nothing;
	return PyUnicode_FromString(ndio_version());
}

static PyMethodDef module_methods[] = {
	{ "version", module_version, METH_NOARGS, "of the library that runs" },
	{ NULL, NULL, 0, NULL },
};

/* Constants have the header's names, without NDIO_. */
#define CONSTANT(name)                                                                             \
	{                                                                                          \
#name, NDIO_##name                                                                 \
	}
static const struct {
	const char *name;
	int value;
} constants[] = {
	CONSTANT(OPEN_READONLY),
	CONSTANT(OPEN_DISCARD),
	CONSTANT(OPEN_NO_LOCK),
	CONSTANT(OPEN_KEY_SLOT),
	CONSTANT(OPEN_NO_DISCARD),
	CONSTANT(OPEN_NO_RECONNECT),
	CONSTANT(DIRECT_AUTO),
	CONSTANT(DIRECT_ON),
	CONSTANT(DIRECT_OFF),
	CONSTANT(FUA),
	CONSTANT(PIN),
	CONSTANT(COPY),
	CONSTANT(MAY_TRIM),
	CONSTANT(FAST_ZERO),
	CONSTANT(EXTENT_HOLE),
	CONSTANT(EXTENT_ZERO),
	CONSTANT(CAN_WRITE),
	CONSTANT(CAN_FLUSH),
	CONSTANT(CAN_FUA),
	CONSTANT(CAN_TRIM),
	CONSTANT(CAN_FAST_ZERO),
	CONSTANT(CAN_EXTENTS),
	CONSTANT(CAN_CACHE),
	CONSTANT(CAN_MULTI_CONN),
	CONSTANT(SERVER_UP),
	CONSTANT(SERVER_AWAY),
	CONSTANT(SERVER_GIVEN_UP),
	CONSTANT(SERVER_ENDED),
	{ "READ", CALL_READ },
	{ "WRITE", CALL_WRITE },
	{ "FLUSH", CALL_FLUSH },
	{ "TRIM", CALL_TRIM },
	{ "ZERO", CALL_ZERO },
	{ "CACHE", CALL_CACHE },
	{ "EXTENTS", CALL_EXTENTS },
};

static int module_fill(PyObject *module)
{
	struct module_state *state = PyModule_GetState(module);
	size_t i;

	for (i = 0; i < sizeof(constants) / sizeof(constants[0]); i++)
		if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
			return -1;
	state->queue_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &queue_spec, NULL);
	if (!state->queue_type || PyModule_AddType(module, state->queue_type) < 0)
		return -1;
	state->volume_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &volume_spec, NULL);
	if (!state->volume_type || PyModule_AddType(module, state->volume_type) < 0)
		return -1;
	return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
	struct module_state *state = PyModule_GetState(module);

	Py_VISIT(state->queue_type);
	Py_VISIT(state->volume_type);
	return 0;
}

static int module_clear(PyObject *module)
{
	struct module_state *state = PyModule_GetState(module);

	Py_CLEAR(state->queue_type);
	Py_CLEAR(state->volume_type);
	return 0;
}

static PyModuleDef_Slot module_slots[] = {
	{ Py_mod_exec, module_fill },
	{ 0, NULL },
};

static struct PyModuleDef module_definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "_ndio",
	.m_doc = "libndio's calls; see the module ndio",
	.m_size = sizeof(struct module_state),
	.m_methods = module_methods,
	.m_slots = module_slots,
	.m_traverse = module_traverse,
	.m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__ndio(void);
PyMODINIT_FUNC PyInit__ndio(void)
{
	return PyModuleDef_Init(&module_definition);
}
