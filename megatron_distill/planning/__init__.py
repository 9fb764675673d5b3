"""How to divide GPUs between teacher and student: time, memory and FLOPs of every split, on paper; no torch."""
