"""Knowledge carried from one network to another (thesis 4.2, 4.3): growing a teacher into a larger student."""
