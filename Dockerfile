# A static binary on an empty image, run by nobody. The only writable path is
# the volume /data.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /kavach ./cmd/kavach \
    && mkdir /data && chown 65532:65532 /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /kavach /kavach
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
VOLUME /data
ENV KAVACH_DATA=/data
EXPOSE 8420
ENTRYPOINT ["/kavach"]
CMD ["serve"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/kavach", "health"]
