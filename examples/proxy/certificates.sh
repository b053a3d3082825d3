#!/bin/sh
# Makes an authority and a certificate for each of two workloads, in the current folder.
set -eu
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=example authority" \
    -addext "basicConstraints=critical,CA:TRUE" -keyout authority.key -out authority.pem 2>/dev/null
for workload in web cart; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$workload" \
        -keyout "$workload.key" -out "$workload.csr" 2>/dev/null
    printf 'subjectAltName=URI:spiffe://example.local/ns/shop/sa/%s\nbasicConstraints=critical,CA:FALSE\n' "$workload" > "$workload.ext"
    openssl x509 -req -in "$workload.csr" -CA authority.pem -CAkey authority.key -CAcreateserial -days 7 \
        -extfile "$workload.ext" -out "$workload.pem" 2>/dev/null
    rm "$workload.csr" "$workload.ext"
done
echo "made authority.pem, web.pem and cart.pem with their keys"
