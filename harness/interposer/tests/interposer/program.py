import os
import subprocess
import sys

path = os.path.join(sys.argv[1], "file")
try:
    with open(path, "w") as file:
        count = file.write("hello")
        file.flush()
        os.fsync(file.fileno())
    with open(path) as file:
        print(count, file.read())
except OSError as error:
    print(error)
print(subprocess.run(["echo", "child ran"], capture_output=True, text=True).stdout, end="")
os.unlink(path)
print("gone" if not os.path.exists(path) else "still there")
