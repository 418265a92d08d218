"""Networks: encoders, decoders and invertible transforms, written for one model; `engine/` maps them over seeds."""
