{
  'targets': [
    {
      'target_name': 'virtio_pmd',
      'sources': [
        'src/addon.cc',
        'src/arguments.cc',
        'src/copy_engine.cc',
        'src/copy_engine_binding.cc',
        'src/descriptors.cc',
        'src/descriptors_binding.cc',
        'src/fd_poll.cc',
        'src/mapping.cc',
        'src/memory_binding.cc',
        'src/memory_table.cc',
        'src/mmio_binding.cc',
        'src/sigbus_guard.cc',
        'src/threads.cc',
        'src/threads_binding.cc',
        'src/unix_socket.cc',
        'src/unix_socket_binding.cc',
        'src/views.cc',
      ],
      'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
      'defines': ['NAPI_VERSION=8', 'NAPI_DISABLE_CPP_EXCEPTIONS', '_GNU_SOURCE', '_FILE_OFFSET_BITS=64'],
      'cflags': ['-O2', '-Wall', '-Wextra', '-fvisibility=hidden'],
      'cflags_cc': ['-std=c++17', '-fno-exceptions', '-fno-rtti'],
      # The SIGBUS handler stays installed for the life of the process, so its code must stay too,
      # also when the only thread that loaded the addon has ended.
      'ldflags': ['-Wl,-z,nodelete'],
    },
  ],
}
