#!/bin/sh
# The first program of a test's guest: loads the modules, then runs the commands that come in on a line.
#
# From the host: `RUN id seconds base64`. To the host: `READY boot`, then for each command `BEGIN id`, its output in
# base64, `END id status`. The line is a terminal or a port of a virtio serial device: the kernel's command line names it,
# guest.agent=NAME.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /dev/hugepages
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
exec </dev/null >/dev/console 2>&1

for word in $(cat /proc/cmdline); do
  case $word in
  guest.agent=*) agent=${word#*=} ;;
  guest.hostroot=*) hostroot=${word#*=} ;;
  esac
done

# load NAME: loads a module and what it needs, where that is not loaded yet.
cat >/bin/load <<'LOAD'
#!/bin/sh
while read -r module; do
  [ -d "/sys/module/$module" ] || insmod "/modules/$module.ko" || exit 1
done <"/modules/$1.list"
LOAD
chmod +x /bin/load
load start

if [ -n "$hostroot" ]; then
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro "$hostroot" /host &&
    mount --bind /dev /host/dev && mount -t proc proc /host/proc && mount -t sysfs sys /host/sys &&
    mount -t tmpfs run /host/run
fi

if [ -e "/dev/$agent" ]; then
  line=/dev/$agent
  stty -F "$line" raw -echo
else
  # A port of a virtio serial device: it appears when the device says so, and is numbered after all that virtio has.
  until name=$(grep -lx "$agent" /sys/class/virtio-ports/*/name 2>/dev/null); do usleep 10000; done
  line=/dev/$(basename "${name%/name}")
fi
exec 3<>"$line"
echo "READY $(cat /proc/sys/kernel/random/boot_id)" >&3
while read -r word id seconds command <&3; do
  [ "$word" = RUN ] || continue
  echo "$command" | base64 -d >/tmp/command
  timeout -s KILL "$seconds" sh /tmp/command >/tmp/output 2>&1 </dev/null 3>&-
  status=$?
  {
    echo "BEGIN $id"
    base64 /tmp/output
    echo "END $id $status"
  } >&3
done
echo "the line is closed"
poweroff -f
